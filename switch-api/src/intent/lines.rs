//! On which line of the text a field stands. Parsed only once something is wrong.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

pub(super) struct Lines(Option<Spanned<Tree>>);

enum Tree {
    Leaf,
    List(Vec<Spanned<Tree>>),
    Map(Vec<(String, Spanned<Tree>)>),
}

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        Self(serde_saphyr::from_str(text).ok())
    }

    /// Line of `links[3].ends[0]`, or of the deepest part of the path that is written.
    pub(super) fn line_of(&self, path: &str) -> Option<u64> {
        let mut at = self.0.as_ref()?;
        let mut line = 1;
        for step in path.split(['.', '[']).filter(|s| !s.is_empty()) {
            let next = match (&at.value, step.strip_suffix(']')) {
                (Tree::List(list), Some(index)) => index.parse().ok().and_then(|i: usize| list.get(i)),
                (Tree::Map(map), None) => map.iter().find(|(key, _)| key == step).map(|(_, v)| v),
                _ => None,
            };
            let Some(next) = next else { break };
            line = next.referenced.line();
            at = next;
        }
        Some(line)
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Build)
    }
}

struct Build;

macro_rules! leaf {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E>(self, _: $type) -> Result<Tree, E> { Ok(Tree::Leaf) })*
    };
}

impl<'de> Visitor<'de> for Build {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    leaf!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
}

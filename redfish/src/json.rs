//! Lenient reading: a [`View`] of a JSON value never fails. What is missing, `null`, empty or of another type is "not said".

use crate::model::ResourcePath;
use crate::time::Timestamp;
use serde_json::Value;

/// Longest text taken over from a BMC.
const TEXT_BYTES: usize = 4096;
/// Most entries of an array inside one resource.
const ENTRIES: usize = 4096;

#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a>(pub(crate) &'a Value);

/// A part of the model that is read from JSON.
pub(crate) trait Read: Sized {
    fn read(view: View<'_>) -> Self;
}

static NULL: Value = Value::Null;

impl<'a> View<'a> {
    /// Keys joined by `|` are alternatives, the first that says anything wins; keys joined by `>` go deeper; a number is an index.
    pub(crate) fn at(&self, keys: &str) -> View<'a> {
        let found = keys.split('|').map(|path| self.deeper(path)).find(|view| !view.0.is_null());
        found.unwrap_or(View(&NULL))
    }

    fn deeper(&self, path: &str) -> View<'a> {
        path.split('>').fold(*self, |view, key| match view.0 {
            Value::Array(list) => View(key.parse().ok().and_then(|i: usize| list.get(i)).unwrap_or(&NULL)),
            other => View(other.get(key).unwrap_or(&NULL)),
        })
    }

    pub(crate) fn text(&self, keys: &str) -> Option<String> {
        let text = match self.at(keys).0 {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            _ => return None,
        };
        let mut end = text.len().min(TEXT_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text: String = text[..end].chars().filter(|c| !c.is_control() || *c == '\n').collect();
        (!text.is_empty()).then_some(text)
    }

    pub(crate) fn whole(&self, keys: &str) -> Option<u64> {
        match self.at(keys).0 {
            Value::Number(number) => number
                .as_u64()
                .or_else(|| number.as_f64().filter(|f| (0.0..1.8e19).contains(f)).map(|f| f as u64)),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    pub(crate) fn number(&self, keys: &str) -> Option<f64> {
        let number = match self.at(keys).0 {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.filter(|n| n.is_finite())
    }

    pub(crate) fn flag(&self, keys: &str) -> Option<bool> {
        match self.at(keys).0 {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "yes" | "enabled" => Some(true),
                "false" | "no" | "disabled" => Some(false),
                _ => None,
            },
            Value::Number(number) => number.as_u64().map(|n| n != 0),
            _ => None,
        }
    }

    pub(crate) fn word<T: for<'t> From<&'t str>>(&self, keys: &str) -> Option<T> {
        self.text(keys).map(|text| T::from(text.as_str()))
    }

    pub(crate) fn words<T: for<'t> From<&'t str>>(&self, keys: &str) -> Vec<T> {
        self.texts(keys).iter().map(|text| T::from(text.as_str())).collect()
    }

    pub(crate) fn texts(&self, keys: &str) -> Vec<String> {
        self.list(keys).filter_map(|view| view.own_text()).collect()
    }

    fn own_text(&self) -> Option<String> {
        match self.0 {
            Value::String(text) if !text.trim().is_empty() && text.len() <= TEXT_BYTES => {
                Some(text.trim().to_owned())
            }
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    pub(crate) fn time(&self, keys: &str) -> Option<Timestamp> {
        self.text(keys).and_then(|text| Timestamp::read(&text))
    }

    /// The resource's own path.
    pub(crate) fn path(&self) -> ResourcePath {
        self.link_here().unwrap_or_default()
    }

    fn link_here(&self) -> Option<ResourcePath> {
        // Some BMCs write a link as a bare string, and iLO 4 as `href`.
        let text = self.0.as_str().or_else(|| {
            ["@odata.id", "href", "Uri"].iter().find_map(|key| self.0.get(key).and_then(Value::as_str))
        });
        text.and_then(ResourcePath::new)
    }

    pub(crate) fn link(&self, keys: &str) -> Option<ResourcePath> {
        self.at(keys).link_here()
    }

    pub(crate) fn links(&self, keys: &str) -> Vec<ResourcePath> {
        let mut links: Vec<_> = self.list(keys).filter_map(|view| view.link_here()).collect();
        if links.is_empty() {
            links.extend(self.link(keys));
        }
        let mut seen = std::collections::BTreeSet::new();
        links.retain(|link| seen.insert(link.clone()));
        links
    }

    /// The entries of an array, bounded.
    pub(crate) fn list(&self, keys: &str) -> impl Iterator<Item = View<'a>> + use<'a> {
        self.at(keys).0.as_array().into_iter().flatten().take(ENTRIES).map(View)
    }

    pub(crate) fn part<T: Read>(&self, keys: &str) -> T {
        T::read(self.at(keys))
    }

    /// None where nothing is said at all.
    pub(crate) fn perhaps<T: Read>(&self, keys: &str) -> Option<T> {
        let view = self.at(keys);
        view.0.is_object().then(|| T::read(view))
    }

    pub(crate) fn parts<T: Read>(&self, keys: &str) -> Vec<T> {
        self.list(keys).map(T::read).collect()
    }

    /// An action's target and what it takes: `#System.Reset` under `Actions`.
    pub(crate) fn action(&self, name: &str) -> Option<crate::model::Action> {
        let actions = self.at("Actions");
        let view = [actions, actions.at("Oem")].into_iter().find_map(|actions| {
            let view = View(actions.0.get(name)?);
            view.0.is_object().then_some(view)
        })?;
        let target = view.0.get("target").or_else(|| view.0.get("Target")).and_then(Value::as_str)?;
        Some(crate::model::Action {
            target: ResourcePath::new(target)?,
            allowed: view
                .0
                .as_object()?
                .iter()
                .filter_map(|(key, value)| {
                    let parameter = key.strip_suffix("@Redfish.AllowableValues")?;
                    let holder = serde_json::json!({ "v": value });
                    Some((parameter.to_owned(), View(&holder).texts("v")))
                })
                .take(64)
                .collect(),
            info: view.link("@Redfish.ActionInfo"),
        })
    }
}

//! Ownership marks: how an object on a switch says that Basalt put it there.

use serde::{Deserialize, Serialize};

/// Whose an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// It carries this fabric's mark: changed and deleted as the intent asks.
    Ours,
    /// Nobody has described it (a port as it came): may be taken over when the intent names it.
    Free,
    /// Described or named by someone else: never touched, unless the intent says `adopt`.
    Foreign,
}

/// The mark of one fabric. Where there is a description (ports, LAGs) it begins with `basalt:FABRIC`; where there is only a name
/// (VLANs, QoS maps and profiles) the name begins with `basalt_FABRIC_`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    description: String,
    name: String,
}

impl Mark {
    pub fn new(fabric: &str) -> Self {
        Self { description: format!("basalt:{fabric}"), name: format!("basalt_{fabric}_") }
    }

    /// A description that carries the mark and then says `what` the object is for.
    pub fn describe(&self, what: &str) -> String {
        format!("{} {what}", self.description).trim_end().to_owned()
    }

    /// A name that carries the mark: letters, digits, `-` and `_` only, at most 32.
    pub fn name(&self, what: &str) -> String {
        format!("{}{what}", self.name)
    }

    /// Whose an object with this description is. Comparing whole words: `basalt:a` does not own what `basalt:ab` marked.
    pub fn owner_by_description(&self, description: &str) -> Owner {
        match description.trim() {
            "" => Owner::Free,
            text if text.split_whitespace().next() == Some(&self.description) => Owner::Ours,
            _ => Owner::Foreign,
        }
    }

    /// Whose an object with this name is. A name is always given by someone.
    pub fn owner_by_name(&self, name: &str) -> Owner {
        if name.starts_with(&self.name) { Owner::Ours } else { Owner::Foreign }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_recognised_and_not_confused() {
        let mark = Mark::new("a");
        assert_eq!(mark.owner_by_description(&mark.describe("node-1/p0")), Owner::Ours);
        assert_eq!(mark.owner_by_description(&Mark::new("ab").describe("node-1/p0")), Owner::Foreign);
        assert_eq!(mark.owner_by_description(" "), Owner::Free);
        assert_eq!(mark.owner_by_description("uplink, do not touch basalt:a"), Owner::Foreign);
        assert_eq!(mark.owner_by_name(&mark.name("storage-a")), Owner::Ours);
        assert_eq!(mark.owner_by_name(&Mark::new("ab").name("x")), Owner::Foreign);
        assert!(Mark::new("twelve-chars").name("twelve-chars").len() <= 32);
    }
}

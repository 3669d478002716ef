//! Fault domains: what fails together, because it hangs in one rack or on one power feed. From the servers' own location data, or from
//! a file for sites whose BMCs do not know it.
//!
//! ```yaml
//! nodes:
//!   r1-u04: {rack: r1, unit: 4, power_feeds: [A, B]}
//! ```

use crate::profile::ProfileError;
use crate::record::{Location, Record};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Locations by node name or serial number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Map {
    pub nodes: BTreeMap<String, Location>,
}

impl Map {
    pub fn from_yaml(text: &str) -> Result<Map, ProfileError> {
        serde_saphyr::from_str(text).map_err(|e| ProfileError::Invalid(e.to_string()))
    }

    /// What the file says outweighs what the server says, field by field.
    pub fn place(&self, name: &str, record: &mut Record) {
        let found = self.nodes.get(name).or_else(|| self.nodes.get(&record.identity.serial));
        let Some(found) = found else { return };
        let mine = &mut record.location;
        for (mine, theirs) in
            [(&mut mine.room, &found.room), (&mut mine.row, &found.row), (&mut mine.rack, &found.rack)]
        {
            if !theirs.is_empty() {
                mine.clone_from(theirs);
            }
        }
        mine.unit = found.unit.or(mine.unit);
        if !found.power_feeds.is_empty() {
            mine.power_feeds.clone_from(&found.power_feeds);
        }
    }
}

/// The domain that data is spread over: the rack, within its room and row. None: it is not known.
pub fn rack(location: &Location) -> Option<String> {
    if location.rack.is_empty() {
        return None;
    }
    let words = [&location.room, &location.row, &location.rack];
    Some(words.into_iter().filter(|w| !w.is_empty()).cloned().collect::<Vec<_>>().join("/"))
}

/// What is doubtful about where nodes stand, in words.
pub fn doubts<'a>(nodes: impl IntoIterator<Item = (&'a str, &'a Location)>) -> Vec<String> {
    let mut doubts = Vec::new();
    let mut places: BTreeMap<(String, u32), &str> = BTreeMap::new();
    let mut racks: BTreeMap<String, usize> = BTreeMap::new();
    let mut all = 0;
    for (name, location) in nodes {
        all += 1;
        let Some(rack) = rack(location) else {
            doubts.push(format!("{name}: its rack is not known; name it in the locations file"));
            continue;
        };
        *racks.entry(rack.clone()).or_default() += 1;
        if let Some(unit) = location.unit
            && let Some(other) = places.insert((rack.clone(), unit), name)
        {
            doubts.push(format!("{name}: stands in {rack} unit {unit}, and so does {other}"));
        }
        let feeds: BTreeSet<&String> = location.power_feeds.iter().collect();
        if feeds.len() == 1 {
            let feed = &location.power_feeds[0];
            doubts.push(format!("{name}: all its power comes from feed {feed}; it goes when that one goes"));
        }
    }
    if all > 2 && racks.len() == 1 {
        doubts.push(format!("all {all} nodes stand in one rack: the loss of that rack is the loss of all"));
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_outweighs_the_server() {
        let map = Map::from_yaml("nodes: {n1: {rack: r7, power_feeds: [A, B]}, SER2: {rack: r8, unit: 3}}")
            .unwrap();
        let location = Location { rack: "r1".into(), unit: Some(9), ..Location::default() };
        let mut record = Record { location, ..Record::default() };
        map.place("n1", &mut record);
        assert_eq!((record.location.rack.as_str(), record.location.unit), ("r7", Some(9)));
        let mut other = Record::default();
        other.identity.serial = "SER2".into();
        map.place("n2", &mut other);
        assert_eq!(rack(&other.location).as_deref(), Some("r8"));
        assert!(Map::from_yaml("nodes: {n1: {rak: r7}}").is_err());
    }

    #[test]
    fn doubts_name_the_node() {
        let at = |rack: &str, unit, feeds: &[&str]| Location {
            rack: rack.into(),
            unit: Some(unit),
            power_feeds: feeds.iter().map(|f| (*f).to_owned()).collect(),
            ..Location::default()
        };
        let (a, b, c) = (at("r1", 4, &["A", "B"]), at("r1", 4, &["A", "A"]), Location::default());
        let doubts = doubts([("a", &a), ("b", &b), ("c", &c)]);
        assert_eq!(doubts.len(), 4, "{doubts:?}");
        assert!(doubts[0].starts_with("b: stands in r1 unit 4, and so does a"));
        assert!(doubts[1].contains("feed A") && doubts[2].starts_with("c: its rack"));
    }
}

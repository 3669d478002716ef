//! Rows of SONiC's databases, and what turns one set of rows into another. Redis and gNMI carry the same rows: `TABLE|key` there,
//! `/CONFIG_DB/localhost/TABLE/key` here.

use std::collections::{BTreeMap, BTreeSet};

/// Fields of one row; everything is a string.
pub(super) type Row = BTreeMap<String, String>;

/// A database, or some of its tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tables(BTreeMap<String, BTreeMap<String, Row>>);

/// Numbers and separators as in SONiC's `database_config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Database {
    Appl,
    Counters,
    Config,
    State,
}

impl Database {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Appl => 0,
            Self::Counters => 2,
            Self::Config => 4,
            Self::State => 6,
        }
    }

    pub(super) fn separator(self) -> char {
        match self {
            Self::Appl | Self::Counters => ':',
            Self::Config | Self::State => '|',
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Appl => "APPL_DB",
            Self::Counters => "COUNTERS_DB",
            Self::Config => "CONFIG_DB",
            Self::State => "STATE_DB",
        }
    }
}

impl Tables {
    pub(super) fn get(&self, table: &str, key: &str) -> Option<&Row> {
        self.0.get(table)?.get(key)
    }

    pub(super) fn field(&self, table: &str, key: &str, field: &str) -> Option<&str> {
        self.get(table, key)?.get(field).map(String::as_str)
    }

    pub(super) fn rows(&self, table: &str) -> impl Iterator<Item = (&str, &Row)> {
        self.0.get(table).into_iter().flatten().map(|(key, row)| (key.as_str(), row))
    }

    /// Keys of two parts: `Vlan100|Ethernet0`.
    pub(super) fn pairs<'a>(
        &'a self,
        table: &str,
    ) -> impl Iterator<Item = (&'a str, &'a str, &'a Row)> + use<'a> {
        let rows = self.0.get(table).into_iter().flatten();
        rows.filter_map(|(key, row)| key.split_once('|').map(|(first, rest)| (first, rest, row)))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str, &Row)> {
        self.0
            .iter()
            .flat_map(|(table, rows)| rows.iter().map(move |(key, row)| (table.as_str(), key.as_str(), row)))
    }

    /// The row, made empty where there is none.
    pub(super) fn row(&mut self, table: &str, key: &str) -> &mut Row {
        self.0.entry(table.to_owned()).or_default().entry(key.to_owned()).or_default()
    }

    pub(super) fn row_if_there(&mut self, table: &str, key: &str) -> Option<&mut Row> {
        self.0.get_mut(table)?.get_mut(key)
    }

    pub(super) fn set(&mut self, table: &str, key: &str, field: &str, value: impl ToString) {
        self.row(table, key).insert(field.to_owned(), value.to_string());
    }

    pub(super) fn remove(&mut self, table: &str, key: &str) -> Option<Row> {
        let rows = self.0.get_mut(table)?;
        let row = rows.remove(key);
        if rows.is_empty() {
            self.0.remove(table);
        }
        row
    }

    pub(super) fn remove_where(&mut self, table: &str, gone: impl Fn(&str, &Row) -> bool) {
        if let Some(rows) = self.0.get_mut(table) {
            rows.retain(|key, row| !gone(key, row));
            if rows.is_empty() {
                self.0.remove(table);
            }
        }
    }
}

/// What happens to one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RowChange {
    Delete,
    Create(Row),
    /// Only the fields that differ, so that what others keep in the row stays.
    Fields {
        set: Row,
        unset: BTreeSet<String>,
    },
}

/// Table and key.
pub(super) type RowName = (String, String);

/// Rows to be changed, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference(BTreeMap<RowName, RowChange>);

impl Difference {
    pub(super) fn between(before: &Tables, after: &Tables) -> Self {
        let mut rows = BTreeMap::new();
        for (table, key, row) in after.iter() {
            let change = match before.get(table, key) {
                None => RowChange::Create(row.clone()),
                Some(old) if old == row => continue,
                Some(old) => RowChange::Fields {
                    set: row.iter().filter(|(f, v)| old.get(*f) != Some(*v)).map(owned).collect(),
                    unset: old.keys().filter(|f| !row.contains_key(*f)).cloned().collect(),
                },
            };
            rows.insert((table.to_owned(), key.to_owned()), change);
        }
        for (table, key, _) in before.iter().filter(|(table, key, _)| after.get(table, key).is_none()) {
            rows.insert((table.to_owned(), key.to_owned()), RowChange::Delete);
        }
        Self(rows)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&RowName, &RowChange)> {
        self.0.iter()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &RowName> {
        self.0.keys()
    }

    /// `current` with the rows named here as they are in `image`.
    pub(super) fn restored(&self, current: &Tables, image: &Tables) -> Tables {
        let mut tables = current.clone();
        for (table, key) in self.names() {
            match image.get(table, key) {
                Some(row) => *tables.row(table, key) = row.clone(),
                None => {
                    tables.remove(table, key);
                }
            }
        }
        tables
    }
}

fn owned((field, value): (&String, &String)) -> (String, String) {
    (field.clone(), value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table, key, fields.
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

    fn tables(rows: &[Row<'_>]) -> Tables {
        let mut tables = Tables::default();
        for (table, key, fields) in rows {
            tables.row(table, key);
            fields.iter().for_each(|(field, value)| tables.set(table, key, field, value));
        }
        tables
    }

    #[test]
    fn a_difference_names_fields_and_leads_back() {
        let before =
            tables(&[("PORT", "Ethernet0", &[("mtu", "1500"), ("fec", "rs")]), ("VLAN", "Vlan5", &[])]);
        let after =
            tables(&[("PORT", "Ethernet0", &[("mtu", "9100"), ("speed", "1")]), ("VLAN", "Vlan6", &[])]);
        let difference = Difference::between(&before, &after);
        let change = &difference.0[&("PORT".into(), "Ethernet0".into())];
        let RowChange::Fields { set, unset } = change else { panic!("{change:?}") };
        assert_eq!(set.keys().collect::<Vec<_>>(), ["mtu", "speed"]);
        assert_eq!(unset.iter().collect::<Vec<_>>(), ["fec"]);
        assert_eq!(difference.0.len(), 3);
        assert_eq!(difference.restored(&after, &before), before);
        assert!(Difference::between(&after, &after).is_empty());
    }
}

//! Settings on the kernel's command line. In a UKI it is signed with the rest, and the firmware passes no other.

use std::collections::BTreeMap;

/// Words of the form `basalt.KEY=VALUE`; the last of a key counts.
pub(crate) struct Cmdline(BTreeMap<String, String>);

impl Cmdline {
    /// The running kernel's.
    pub(crate) fn read() -> Cmdline {
        Cmdline::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default())
    }

    fn parse(text: &str) -> Cmdline {
        let words = text.split_ascii_whitespace().filter_map(|word| word.strip_prefix("basalt."));
        Cmdline(words.filter_map(|w| w.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// A number; `None` where the key is missing or is not one.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.parse().ok()
    }

    /// Variables for the data plane: `basalt.env.NAME=VALUE`, only `BASALT_*`.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        let named = self.0.iter().filter_map(|(k, v)| Some((k.strip_prefix("env.")?, v.as_str())));
        named.filter(|(name, _)| name.starts_with("BASALT_"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_words_count_and_the_last_wins() {
        let c = Cmdline::parse(
            "console=ttyS0 basalt.drives=none quiet basalt.drives=auto basalt.odd basalt.n=x basalt.env.BASALT_LOG=debug basalt.env.PATH=/",
        );
        assert_eq!(c.get("drives"), Some("auto"));
        assert_eq!(c.get("odd"), None);
        assert_eq!(c.number("n"), None);
        assert_eq!(c.environment().collect::<Vec<_>>(), [("BASALT_LOG", "debug")]);
    }
}

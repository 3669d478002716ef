//! Passwords and tokens: wiped when dropped, never printed.

use std::fmt;
use zeroize::Zeroizing;

/// A password or token. It has no `Display` and no serde; `Debug` prints `***`; [`Secret::expose`] is the one way to its text, to be
/// called where a request is built and nowhere else.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `text` with this secret blotted out: for errors that quote an answer, since some devices echo the request.
    pub fn redact(&self, text: &str) -> String {
        if self.0.is_empty() { text.to_owned() } else { text.replace(self.0.as_str(), "***") }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_never_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "*** Some(\n    ***,\n)");
        assert_eq!(secret.redact("bad login admin:hunter2"), "bad login admin:***");
        assert_eq!(Secret::default().redact("abc"), "abc");
    }
}

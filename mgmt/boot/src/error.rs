//! What can go wrong, each with what to do next.

pub type Result<T> = std::result::Result<T, BootError>;

#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("{0}")]
    Config(String),
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("{path} is damaged ({why}); move it away to begin anew, or put back a copy")]
    Damaged { path: String, why: String },
    #[error("there are {0} already, the most this store takes; {1}")]
    Full(usize, &'static str),
    #[error("the token is refused: {0}")]
    Token(String),
    #[error("no such {0}")]
    NotFound(String),
}

impl BootError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

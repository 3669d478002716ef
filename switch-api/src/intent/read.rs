//! From text to a validated [`Fabric`], or to a list of problems that say where they are.

use super::lines::Lines;
use super::model::Fabric;
use super::validate;
use std::fmt;
use std::path::Path;

/// A rack row of 64 switches is some 200 KiB; anything near this bound is not a fabric.
const MAX_BYTES: u64 = 8 << 20;

/// One thing that is wrong with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `links[3].speed_gbps`; empty where the text could not be parsed at all.
    pub field: String,
    /// Counted from 1; of the nearest enclosing field where the field itself is not written.
    pub line: Option<u64>,
    pub cause: String,
    pub next: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.cause, self.next)
    }
}

/// Why a `fabric.yaml` was not taken.
#[derive(Debug, thiserror::Error)]
pub enum IntentError {
    #[error("{path}: {reason}; give the path of a readable fabric.yaml")]
    Unreadable { path: String, reason: String },
    #[error("fabric.yaml: {}", lines(.0))]
    Invalid(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n  ")
}

impl Fabric {
    /// Parses and validates.
    pub fn from_yaml(text: &str) -> Result<Self, IntentError> {
        let fabric: Self = serde_saphyr::from_str(text).map_err(|error| {
            let error = error.without_snippet();
            IntentError::Invalid(vec![Problem {
                field: String::new(),
                line: error.location().map(|l| l.line()),
                cause: without_place(&error.to_string()),
                next: "see the schema (fabric.schema.json) for what may stand there".into(),
            }])
        })?;
        let mut problems = validate::problems(&fabric);
        if problems.is_empty() {
            return Ok(fabric);
        }
        let lines = Lines::of(text);
        for problem in &mut problems {
            problem.line = lines.line_of(&problem.field);
        }
        Err(IntentError::Invalid(problems))
    }

    pub fn read(path: &Path) -> Result<Self, IntentError> {
        let unreadable =
            |reason: String| IntentError::Unreadable { path: path.display().to_string(), reason };
        let size = std::fs::metadata(path).map_err(|e| unreadable(e.to_string()))?.len();
        if size > MAX_BYTES {
            return Err(unreadable(format!("{size} bytes are more than the {MAX_BYTES} allowed")));
        }
        Self::from_yaml(&std::fs::read_to_string(path).map_err(|e| unreadable(e.to_string()))?)
    }

    /// As the agent writes it, from inventory and LLDP.
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(self).unwrap_or_default()
    }
}

/// The parser's message begins with the place, which a [`Problem`] has apart.
fn without_place(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default().trim_start_matches("error: ");
    match line.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        Some((_, cause)) => cause.to_owned(),
        None => line.to_owned(),
    }
}

/// The JSON Schema of `fabric.yaml`.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Fabric).to_value();
    schema["title"] = "Basalt storage fabric (fabric.yaml)".into();
    schema
}

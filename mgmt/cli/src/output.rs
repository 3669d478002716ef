//! Tables for people, JSON and YAML for programs.

use crate::control::CliError;
use serde::Serialize;
use std::io::{IsTerminal, Write};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
    Yaml,
}

/// One line of a table.
pub(crate) type Row = Vec<String>;

/// Prints `value`; `table` makes its lines, the first of them the headings (none: nothing is printed as a table).
pub(crate) fn print<T: Serialize>(
    output: Output,
    value: &T,
    table: impl FnOnce(&T) -> Vec<Row>,
) -> Result<(), CliError> {
    print_text(output, value, |value| render(&table(value)))
}

/// The same where a table does not do.
pub(crate) fn print_text<T: Serialize>(
    output: Output,
    value: &T,
    people: impl FnOnce(&T) -> String,
) -> Result<(), CliError> {
    let text = match output {
        Output::Table => people(value),
        Output::Json => format!("{}\n", serde_json::to_string_pretty(value).map_err(failed)?),
        Output::Yaml => serde_saphyr::to_string(value).map_err(failed)?,
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // The reader (`head`, a pager) has seen enough.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(failed),
    }
}

fn failed(e: impl std::fmt::Display) -> CliError {
    CliError::Failed(e.to_string())
}

/// Columns two spaces apart, as wide as their widest cell; an empty row begins a new table.
pub(crate) fn render(rows: &[Row]) -> String {
    let tables: Vec<String> = rows.split(Vec::is_empty).map(render_one).collect();
    tables.join("\n")
}

fn render_one(rows: &[Row]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(&paint(line.trim_end()));
        text.push('\n');
    }
    text
}

/// Whether `stream` may be coloured.
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Draws the eye to trouble, on terminals whose owner wants colour (<https://no-color.org>).
fn paint(line: &str) -> String {
    let has = |words: &[&str]| words.iter().any(|w| line.contains(w));
    let colour = match () {
        _ if !colours(&std::io::stdout()) => return line.to_owned(),
        _ if has(&["writes stopped", "data lost", "missing"]) => 31,
        _ if has(&["degraded", " out "]) => 33,
        _ if has(&["healthy"]) => 32,
        _ => return line.to_owned(),
    };
    format!("\x1b[{colour}m{line}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align() {
        let rows = vec![vec!["NAME".into(), "SIZE".into()], vec!["a-long-name".into(), "1".into()]];
        assert_eq!(render(&rows), "NAME         SIZE\na-long-name  1\n");
    }
}

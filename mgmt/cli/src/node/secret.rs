//! Where passphrases and passwords come from: a file, the environment, or a person at the terminal. Never the command line, which
//! everybody on the machine can read.

use crate::control::CliError;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use zeroize::Zeroizing;

const MAX_BYTES: usize = 4096;

/// From `file`, else the variable, else the terminal, asked for with `prompt`.
pub(super) fn secret(
    file: Option<&Path>,
    variable: &str,
    prompt: &str,
) -> Result<Zeroizing<String>, CliError> {
    if let Some(file) = file {
        let text =
            std::fs::read(file).map_err(|e| CliError::Usage(format!("reading {}: {e}", file.display())))?;
        let text = Zeroizing::new(text);
        return clean(&text, &file.display().to_string());
    }
    if let Ok(value) = std::env::var(variable) {
        return clean(Zeroizing::new(value).as_bytes(), variable);
    }
    ask(prompt).ok_or_else(|| {
        CliError::Usage(format!("{prompt} is needed: give it in a file or in {variable}, or use a terminal"))
    })?
}

/// One line, without its end.
fn clean(bytes: &[u8], from: &str) -> Result<Zeroizing<String>, CliError> {
    let text = std::str::from_utf8(bytes).ok().map(|t| t.trim_end_matches(['\r', '\n']));
    match text {
        Some(text) if !text.is_empty() && text.len() <= MAX_BYTES && !text.contains('\n') => {
            Ok(Zeroizing::new(text.to_owned()))
        }
        _ => Err(CliError::Usage(format!("{from} holds no secret of one line"))),
    }
}

/// None: there is no terminal.
fn ask(prompt: &str) -> Option<Result<Zeroizing<String>, CliError>> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
    let before = tcgetattr(&terminal).ok()?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&terminal, OptionalActions::Now, &silent).ok()?;
    /// Whatever happens, the terminal shows again what is typed.
    struct Restore<'a>(&'a std::fs::File, Termios);
    impl Drop for Restore<'_> {
        fn drop(&mut self) {
            let _ = tcsetattr(self.0, OptionalActions::Now, &self.1);
        }
    }
    let reading = terminal.try_clone().ok()?;
    let _restore = Restore(&reading, before);
    let _ = write!(terminal, "{prompt}: ");
    let mut line = Zeroizing::new(String::with_capacity(MAX_BYTES));
    let read = BufReader::new(&reading).read_line(&mut line);
    let _ = writeln!(terminal);
    Some(match read {
        Ok(n) if n > 0 => clean(line.as_bytes(), "the terminal"),
        _ => Err(CliError::Usage(format!("{prompt} was not given"))),
    })
}

/// `yes` at the terminal; false where there is none.
pub(super) fn agreed(question: &str) -> bool {
    let Ok(mut terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else { return false };
    let Ok(reading) = terminal.try_clone() else { return false };
    let _ = write!(terminal, "{question} [y/N] ");
    let mut line = String::new();
    let _ = BufReader::new(reading).read_line(&mut line);
    matches!(line.trim().to_lowercase().as_str(), "y" | "yes")
}

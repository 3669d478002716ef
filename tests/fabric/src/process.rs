//! Programs that run beside the test, and such that are waited for.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Ends with this value.
pub(crate) struct Running(Child);

impl Running {
    /// `program` in the namespace, its output in `log`.
    pub(crate) fn start(
        namespace: &str,
        log: &Path,
        program: &[&str],
        variables: &[(&str, &Path)],
    ) -> Result<Self, String> {
        let fail = |e: std::io::Error| format!("{}: {e}", program[0]);
        let output = File::options().create(true).append(true).open(log).map_err(fail)?;
        let errors = output.try_clone().map_err(fail)?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).args(program);
        command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(output).stderr(errors);
        command.spawn().map(Self).map_err(fail)
    }

    /// SIGKILL, and gone when this returns.
    pub(crate) fn kill(&mut self) {
        // Already gone is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program to its end; its output.
pub(crate) fn run(program: &[&str]) -> Result<String, String> {
    let output = Command::new(program[0]).args(&program[1..]).stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("{}: {e}", program.join(" ")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{}: {}", program.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// Asks again and again; what it said last when it did not become true.
pub(crate) fn until<T>(
    within: Duration,
    mut question: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let end = Instant::now() + within;
    loop {
        match question() {
            Ok(answer) => return Ok(answer),
            Err(reason) if Instant::now() >= end => return Err(reason),
            Err(_) => sleep(Duration::from_millis(100)),
        }
    }
}

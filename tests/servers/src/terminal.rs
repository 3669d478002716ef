//! A program on a terminal of its own.

use nix::pty::{Winsize, openpty};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) struct Terminal {
    child: crate::world::Running,
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// All of `command`'s input and output is a terminal; what it shows is kept in `log` as well.
    pub(crate) fn start(mut command: Command, mut log: File) -> Result<Terminal, String> {
        let size = Winsize { ws_row: 30, ws_col: 110, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).map_err(|e| format!("no terminal: {e}"))?;
        let side = || pty.slave.try_clone().map_err(|e| e.to_string());
        command.stdin(side()?).stdout(side()?).stderr(side()?);
        let child = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
        // Ours go, or reading would not end with the program.
        drop((command, pty.slave));
        let text = Arc::new(Mutex::new(String::new()));
        let (shown, mut master) = (text.clone(), File::from(pty.master));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = master.read(&mut buffer) {
                let _ = log.write_all(&buffer[..length]);
                if let Ok(mut shown) = shown.lock() {
                    shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
                }
            }
        });
        Ok(Terminal { child: crate::world::Running(child), text, reader: Some(reader) })
    }

    pub(crate) fn text(&self) -> String {
        self.text.lock().map(|text| text.clone()).unwrap_or_default()
    }

    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, String> {
        self.child.0.try_wait().map_err(|e| e.to_string())
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) -> Result<String, String> {
        self.child.0.kill().map_err(|e| e.to_string())?;
        self.child.0.wait().map_err(|e| e.to_string())?;
        Ok(self.rest())
    }

    /// Its exit code and all that it showed.
    pub(crate) fn wait(mut self, limit: Duration) -> Result<(i32, String), String> {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.ended()? {
                break status;
            }
            if start.elapsed() > limit {
                let text = self.text();
                let tail: String = text.chars().skip(text.chars().count().saturating_sub(1000)).collect();
                return Err(format!("it did not end within {} s; it shows {tail}", limit.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        Ok((status.code().unwrap_or(-1), self.rest()))
    }

    fn rest(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.text()
    }
}

//! Output of supervised programs, kept on the state partition in files of bounded number and size.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const FILE_BYTES: u64 = 4 << 20;
const FILES: u32 = 4;
/// Longer lines are cut into pieces of this size.
const LINE_BYTES: u64 = 16 << 10;

/// `NAME.log` and older ones `NAME.log.1` to `NAME.log.3`.
pub(crate) struct Log {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    file_bytes: u64,
}

impl Log {
    pub(crate) fn open(dir: &Path, name: &str) -> Log {
        Log::with_limit(dir, name, FILE_BYTES)
    }

    fn with_limit(dir: &Path, name: &str, file_bytes: u64) -> Log {
        let path = dir.join(format!("{name}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&path).ok();
        let bytes = file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
        Log { path, file, bytes, file_bytes }
    }

    /// Appends. A full or broken state partition loses log lines, never the service.
    pub(crate) fn write(&mut self, line: &[u8]) {
        if self.bytes + line.len() as u64 > self.file_bytes {
            self.rotate();
        }
        if let Some(file) = &mut self.file
            && file.write_all(line).is_ok()
        {
            self.bytes += line.len() as u64;
        }
    }

    fn numbered(&self, n: u32) -> PathBuf {
        if n == 0 { self.path.clone() } else { PathBuf::from(format!("{}.{n}", self.path.display())) }
    }

    fn rotate(&mut self) {
        for n in (1..FILES).rev() {
            let _ = fs::rename(self.numbered(n - 1), self.numbered(n));
        }
        self.file = File::create(&self.path).ok();
        self.bytes = 0;
    }
}

/// Reads `source` to its end into `log`, each line prefixed with the uptime, and hands each line to `seen`.
pub(crate) fn follow(source: impl Read, log: &Arc<Mutex<Log>>, mut seen: impl FnMut(&str)) {
    let mut source = BufReader::new(source);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut source).take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        seen(String::from_utf8_lossy(&line).trim_end());
        let mut record = format!("{:.3} ", crate::console::uptime_s()).into_bytes();
        record.extend(&line);
        if let Ok(mut log) = log.lock() {
            log.write(&record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_the_newest() {
        let dir = std::env::temp_dir().join(format!("basalt-log-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let log = Arc::new(Mutex::new(Log::with_limit(&dir, "x", 1000)));
        let text: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        let mut lines = 0;
        follow(text.as_bytes(), &log, |_| lines += 1);
        assert_eq!(lines, 1000);
        let sizes: Vec<u64> =
            fs::read_dir(&dir).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(sizes.len(), FILES as usize);
        assert!(sizes.iter().all(|&s| s <= 1000), "{sizes:?}");
        assert!(fs::read_to_string(dir.join("x.log")).unwrap().ends_with("line 999\n"));
        // A restart appends.
        Log::with_limit(&dir, "x", 1000).write(b"again\n");
        assert!(fs::read_to_string(dir.join("x.log")).unwrap().ends_with("line 999\nagain\n"));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn endless_lines_are_cut() {
        // No such folder: a log that cannot be opened loses its lines and nothing else.
        let dir = std::env::temp_dir().join(format!("basalt-log-none-{}", std::process::id()));
        let log = Arc::new(Mutex::new(Log::with_limit(&dir, "x", 10)));
        let mut lengths = Vec::new();
        follow(vec![b'x'; 40 << 10].as_slice(), &log, |l| lengths.push(l.len()));
        assert_eq!(lengths, [16 << 10, 16 << 10, 8 << 10]);
        assert!(!dir.exists());
    }
}

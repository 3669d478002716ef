//! One file-backed drive through the reactor's ring, beside fio on the same file.

use super::codec::content;
use super::lanes::lanes;
use super::one_core;
use crate::Environment;
use crate::row::{NOTHING, Report};
use basalt_bdev::uring::UringDrive;
use basalt_bdev::{BdevError, Durability};
use basalt_system::rng::Rng;
use bytes::Bytes;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const DRIVE_BYTES: u64 = 256 << 20;
const BLOCK_BYTES: u64 = 4096;
const DEPTH: usize = 32;

pub(super) fn run(environment: &Environment, report: &mut Report) {
    let name = "drive: 4 KiB random reads, file, 32 in flight";
    if !environment.wants(name) {
        return;
    }
    let path = environment.work_dir.join("drive.img");
    let time = environment.row_time();
    let of_drive = path.clone();
    let ours = basalt_reactor::real::run(one_core(), move || async move {
        reads(of_drive, time).await.map_err(|e| e.to_string())
    });
    let peer = fio(&path, time);
    let _ = std::fs::remove_file(&path);
    match (ours, peer) {
        (Err(error), _) => report.failed(name, &error),
        (Ok(rate), Ok(fio)) => report.row(name, "op/s", rate, Some(("fio io_uring", fio)), NOTHING),
        (Ok(rate), Err(why)) => {
            report.skipped("fio", &why);
            report.row(name, "op/s", rate, None, NOTHING);
        }
    }
}

async fn reads(path: PathBuf, time: Duration) -> Result<f64, BdevError> {
    let drive = UringDrive::create_file(&path, DRIVE_BYTES)?;
    let channel = drive.open()?;
    let chunk = Bytes::from(content(1 << 20, 1));
    for offset in (0..DRIVE_BYTES).step_by(chunk.len()) {
        channel.write(offset, vec![chunk.clone()], Durability::Cached).await?;
    }
    channel.flush().await?;
    let rng = RefCell::new(Rng::new(1));
    let (meter, _) = lanes(DEPTH, time, async move |_| {
        let offset = rng.borrow_mut().below(DRIVE_BYTES / BLOCK_BYTES) * BLOCK_BYTES;
        channel.read(offset, BLOCK_BYTES as usize).await?;
        Ok::<u64, BdevError>(1)
    })
    .await?;
    Ok(meter.rate())
}

fn fio(path: &Path, time: Duration) -> Result<f64, String> {
    let output = Command::new("fio")
        .args(["--name=bench", "--ioengine=io_uring", "--direct=1", "--rw=randread", "--bs=4k"])
        .args(["--time_based", "--output-format=json"])
        .arg(format!("--iodepth={DEPTH}"))
        .arg(format!("--runtime={}", time.as_secs().max(1)))
        .arg(format!("--filename={}", path.display()))
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err("not installed (apt-get install fio)".into());
        }
        Err(e) => return Err(e.to_string()),
    };
    let value: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("{e}: {}", String::from_utf8_lossy(&output.stderr)))?;
    value["jobs"][0]["read"]["iops"].as_f64().ok_or_else(|| "its output has no read rate".into())
}

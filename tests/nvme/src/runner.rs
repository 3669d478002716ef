//! The host's side: boots, listens, does what the guest asks for, and counts.

use crate::image;
use crate::protocol::{Figure, Line, Want};
use crate::qemu::{self, Machine};
use serde_json::json;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

/// Silence of the guest after which it counts as hung.
const SILENCE: Duration = Duration::from_secs(120);
/// What the guest writes at the start of its first drive; found in the image file afterwards.
pub(crate) const SIGNATURE: &[u8] = b"written by Basalt through VFIO";

pub(crate) fn run(dir: &Path, filter: &str, console: bool) -> Result<(), String> {
    let started = Instant::now();
    let image = image::build(dir)?;
    qemu::make_images(dir)?;
    let append = format!("basalt.mode=test basalt.filter={filter}");
    let mut machine = Machine::boot(&image, dir, &append, &qemu::test_drives(dir), console)?;
    let mut passed = 0;
    let mut failed = Vec::new();
    listen(&mut machine, dir, |machine, line| {
        match line {
            Line::Up => println!("guest up after {:.1} s", started.elapsed().as_secs_f64()),
            Line::Passed { test, ms } => {
                println!("  ok      {test} ({ms} ms)");
                passed += 1;
            }
            Line::Failed { test, why } => {
                println!("  FAILED  {test}: {why}");
                failed.push(test);
            }
            Line::Want(want) => fulfil(machine, want)?,
            Line::Figure(_) | Line::Done => {}
        }
        Ok(())
    })?;
    drop(machine);
    if filter.is_empty() {
        check_signature(dir)?;
    }
    println!("{passed} passed, {} failed, {:.0} s", failed.len(), started.elapsed().as_secs_f64());
    if failed.is_empty() && passed > 0 { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

pub(crate) fn bench(dir: &Path, seconds: u64, console: bool) -> Result<(), String> {
    let image = image::build(dir)?;
    let append = format!("basalt.mode=bench basalt.seconds={seconds}");
    let mut machine = Machine::boot(&image, dir, &append, &qemu::bench_drives(), console)?;
    let mut figures: Vec<Figure> = Vec::new();
    let mut failed = None;
    listen(&mut machine, dir, |_, line| {
        match line {
            Line::Figure(figure) => figures.push(figure),
            Line::Failed { test, why } => failed = Some(format!("{test}: {why}")),
            _ => {}
        }
        Ok(())
    })?;
    for figure in &figures {
        println!("{}", serde_json::to_string(figure).map_err(|e| e.to_string())?);
    }
    match failed {
        Some(why) => Err(why),
        None if figures.is_empty() => Err("the guest measured nothing".to_owned()),
        None => Ok(()),
    }
}

/// Until the guest is done.
fn listen(
    machine: &mut Machine,
    dir: &Path,
    mut each: impl FnMut(&mut Machine, Line) -> Result<(), String>,
) -> Result<(), String> {
    loop {
        let text = machine.lines.recv_timeout(SILENCE).map_err(|e| {
            let log = std::fs::read_to_string(dir.join("console.log")).unwrap_or_default();
            let errors = std::fs::read_to_string(dir.join("qemu.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(25).collect();
            let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
            format!("the guest ended or fell silent ({e}); its console, and QEMU's words:\n{tail}\n{errors}")
        })?;
        match Line::parse(&text) {
            Some(Line::Done) => return Ok(()),
            Some(line) => each(machine, line)?,
            None => {}
        }
    }
}

fn fulfil(machine: &mut Machine, want: Want) -> Result<(), String> {
    let limit = |iops: u64| json!({ "path": "/objects/brake", "property": "limits", "value": { "iops-total": iops } });
    match want {
        Want::Remove => machine.monitor("device_del", json!({ "id": "plug" })),
        Want::Insert => insert(machine),
        Want::Slow => machine.monitor("qom-set", limit(1)),
        Want::Fast => machine.monitor("qom-set", limit(0)),
    }
    .map(drop)
}

/// The machine lets go of a removed device a moment after its guest does.
fn insert(machine: &mut Machine) -> Result<serde_json::Value, String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match machine.monitor("device_add", qemu::plug_device()) {
            Err(e) if e.contains("Duplicate") && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(200));
            }
            other => return other,
        }
    }
}

/// An independent look at what arrived on the medium.
fn check_signature(dir: &Path) -> Result<(), String> {
    let mut file = std::fs::File::open(dir.join("main1.img")).map_err(|e| e.to_string())?;
    let mut found = vec![0; SIGNATURE.len()];
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut found)).map_err(|e| e.to_string())?;
    if found != SIGNATURE {
        return Err(format!("the first drive's image begins with {:?}", String::from_utf8_lossy(&found)));
    }
    Ok(())
}

//! The NVMe driver: beside the kernel's through io_uring, in one guest on one emulated drive; and its instructions per
//! read, counted on a controller in memory.

use crate::Environment;
use crate::row::{NOTHING, Report};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const READS: u64 = 64_000;

/// One line of `basalt-nvme-tests bench`.
#[derive(Deserialize)]
struct Figure {
    metric: String,
    ours_iops: f64,
    ours_cpu_s_per_s: f64,
    kernel_iops: f64,
    kernel_cpu_s_per_s: f64,
}

pub(crate) fn run(environment: &Environment, report: &mut Report) {
    let own = match std::env::current_exe() {
        Ok(path) => path,
        Err(e) => return report.failed("nvme", &e.to_string()),
    };
    let programs = own.parent().map(Path::to_path_buf).unwrap_or_default();
    if environment.wants("4 KiB random reads, emulated drive") {
        guest(&programs, environment, report);
    }
    // The mode `drive` of the same program counts the simulator's fill of each buffer as well, so it is no row.
    let name = "instructions per 4 KiB read, queue pair, 32 in flight";
    if environment.wants(name) {
        match instructions(&programs, environment, "queue") {
            Ok(count) => report.row(name, "instr", count, None, NOTHING),
            Err(why) => report.skipped(name, &why),
        }
    }
}

fn guest(programs: &Path, environment: &Environment, report: &mut Report) {
    let what = "nvme in a guest";
    let program = programs.join("basalt-nvme-tests");
    if !program.exists() || which("qemu-system-x86_64").is_none() {
        return report.skipped(
            what,
            "basalt-nvme-tests is not built, or QEMU is not installed (apt-get install qemu-system-x86)",
        );
    }
    let seconds = (environment.seconds.round() as u64).max(1).to_string();
    let output = Command::new(program).args(["bench", "--seconds", &seconds]).stdin(Stdio::null()).output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        Ok(output) => return report.failed(what, &String::from_utf8_lossy(&output.stderr)),
        Err(e) => return report.failed(what, &e.to_string()),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for figure in text.lines().filter_map(|line| serde_json::from_str::<Figure>(line).ok()) {
        let per_cpu = |iops: f64, cpu: f64| if cpu > 0.0 { iops / cpu } else { 0.0 };
        let ours = per_cpu(figure.ours_iops, figure.ours_cpu_s_per_s);
        let kernel = per_cpu(figure.kernel_iops, figure.kernel_cpu_s_per_s);
        report.row(&figure.metric, "op/CPUs", ours, Some(("kernel, io_uring", kernel)), NOTHING);
        report.row(
            &format!("{}, by the clock", figure.metric),
            "op/s",
            figure.ours_iops,
            Some(("kernel, io_uring", figure.kernel_iops)),
            NOTHING,
        );
    }
}

/// Counted by callgrind in the driver's own functions only.
fn instructions(programs: &Path, environment: &Environment, mode: &str) -> Result<f64, String> {
    let program = programs.join("examples/overhead");
    if !program.exists() {
        return Err("the example `overhead` of basalt-nvme is not built".to_owned());
    }
    let valgrind = which("valgrind").ok_or("valgrind is not installed (apt-get install valgrind)")?;
    let out = environment.work_dir.join(format!("callgrind.{mode}"));
    let status = Command::new(valgrind)
        .args(["--tool=callgrind", "--collect-atstart=no", "-q"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(format!("--toggle-collect=basalt_nvme_overhead_{mode}"))
        // The part of the driver that the reactor polls; nothing of it runs in the other mode.
        .arg("--toggle-collect=*IoQueue*PollSource*poll*")
        .arg(program)
        .args([mode, &READS.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|e| e.to_string())?;
    if !status.success() {
        return Err(format!("callgrind ended with {status}"));
    }
    let text = std::fs::read_to_string(&out).map_err(|e| e.to_string())?;
    let total = text.lines().find_map(|l| l.strip_prefix("summary: ").or_else(|| l.strip_prefix("totals: ")));
    let total: f64 = total.and_then(|t| t.trim().parse().ok()).ok_or("callgrind wrote no total")?;
    Ok(total / READS as f64)
}

fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.is_file())
}

//! UEFI firmware with Secure Boot switched on and the build's test keys enrolled.

use crate::machine::Machine;
use crate::work::{Image, Scratch, run};
use std::path::PathBuf;
use std::process::Command;

/// Owner of the test keys' signature lists; any will do.
const OWNER: &str = "6c1b2d0e-52f7-4ba0-9e0e-ba5a17000001";

/// `virt-fw-vars` of PyPI's virt-firmware; `tests/setup image-test` puts it there.
fn virt_fw_vars(image: &Image) -> PathBuf {
    let own = image.dir.join("venv/bin/virt-fw-vars");
    if own.exists() { own } else { PathBuf::from("virt-fw-vars") }
}

/// Adds the firmware to the machine.
pub(crate) fn secure_boot(machine: Machine, image: &Image, scratch: &Scratch) -> Result<Machine, String> {
    let variables = scratch.dir.join("variables.fd");
    let mut enrol = Command::new(virt_fw_vars(image));
    enrol.arg("--input").arg(image.builder("usr/share/OVMF/OVMF_VARS_4M.fd")).arg("--output").arg(&variables);
    for (option, name) in [("--set-pk", "platform"), ("--add-kek", "exchange"), ("--add-db", "secure-boot")] {
        enrol.arg(option).arg(OWNER).arg(image.key(&format!("{name}.crt")));
    }
    run(enrol.arg("--secure-boot"))?;
    let code = image.builder("usr/share/OVMF/OVMF_CODE_4M.secboot.fd");
    Ok(machine
        .args(["-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"])
        .args([
            "-drive".to_owned(),
            format!("if=pflash,unit=0,format=raw,readonly=on,file={}", code.display()),
        ])
        .args(["-drive".to_owned(), format!("if=pflash,unit=1,format=raw,file={}", variables.display())]))
}

/// Firmware without Secure Boot: less to emulate, and nothing to enrol.
pub(crate) fn plain(machine: Machine, image: &Image, scratch: &Scratch) -> Result<Machine, String> {
    let variables = scratch.dir.join("variables.fd");
    std::fs::copy(image.builder("usr/share/OVMF/OVMF_VARS_4M.fd"), &variables).map_err(|e| e.to_string())?;
    let code = image.builder("usr/share/OVMF/OVMF_CODE_4M.fd");
    let flash = |unit: u32, file: &std::path::Path, how: &str| {
        ["-drive".to_owned(), format!("if=pflash,unit={unit},format=raw{how},file={}", file.display())]
    };
    Ok(machine.args(["-machine", "q35"]).args(flash(0, &code, ",readonly=on")).args(flash(1, &variables, "")))
}

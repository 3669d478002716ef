//! A virtual server: a libvirt domain that QEMU emulates in software.

use crate::world::{BRIDGE, World, run, virsh, write};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// What a boot image without a disk needs; the initrd is unpacked beside itself.
const MEMORY_MIB: u32 = 1280;
/// One for the system, where it is installed, and two more.
const DRIVES: usize = 3;
/// An installed system takes 2.5 GiB.
pub(crate) const DRIVE_BYTES: u64 = 4 << 30;
/// Of the first drive of each server: sushy-tools says this one of any drive.
pub(crate) const FIRST_SERIAL: &str = "1234570";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Firmware {
    Bios,
    Uefi,
}

pub(crate) struct Domain {
    pub(crate) name: String,
    pub(crate) firmware: Firmware,
    pub(crate) uuid: String,
    pub(crate) mac: String,
    /// What it says on its serial console, over all its starts.
    pub(crate) console: PathBuf,
    drives: Vec<PathBuf>,
}

impl Domain {
    /// Off, with blank drives. `rack` and `unit` make name, UUID and MAC.
    pub(crate) fn define(world: &World, rack: u8, unit: u8, firmware: Firmware) -> Result<Domain, String> {
        let name = format!("r{rack}-u{unit:02}");
        let mut domain = Domain {
            uuid: format!("ba5a1700-0000-4000-8000-0000000{rack:02x}0{unit:02x}"),
            mac: format!("52:54:00:ba:{rack:02x}:{unit:02x}"),
            console: world.logs.join(format!("{name}.console")),
            drives: Vec::new(),
            firmware,
            name,
        };
        for i in 0..DRIVES {
            let path = world.scratch.join(format!("{}-drive{i}", domain.name));
            let made = File::create(&path).and_then(|f| f.set_len(DRIVE_BYTES));
            made.map_err(|e| format!("{}: {e}", path.display()))?;
            domain.drives.push(path);
        }
        let file = world.scratch.join(format!("{}.xml", domain.name));
        write(&file, &domain.xml())?;
        virsh(&["define", &file.to_string_lossy()])?;
        Ok(domain)
    }

    /// One CPU: with a thread for each of two, code that the guest's kernel patches while it runs was seen half patched (see the image
    /// tests), and libvirt cannot ask for one thread.
    fn xml(&self) -> String {
        let Domain { name, uuid, mac, .. } = self;
        let console = self.console.display();
        let (os, rom) = match self.firmware {
            // With its loader named: sushy-tools reads the boot mode from there.
            Firmware::Bios => (
                "<os><type arch='x86_64' machine='q35'>hvm</type><loader type='rom'>/usr/share/seabios/bios-256k.bin</loader></os>",
                "",
            ),
            // By its own network stack, as servers do, not by iPXE.
            Firmware::Uefi => (
                "<os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type><firmware><feature enabled='no' name='secure-boot'/></firmware></os>",
                "<rom enabled='no'/>",
            ),
        };
        let drives: String = self
            .drives
            .iter()
            .zip(["vda", "vdb", "vdc"])
            .map(|(path, target)| {
                let path = path.display();
                let serial = if target == "vda" { FIRST_SERIAL.to_owned() } else { format!("{name}-{target}") };
                format!("<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{path}'/><target dev='{target}' bus='virtio'/><serial>{serial}</serial></disk>\n")
            })
            .collect();
        format!(
            "<domain type='qemu'>
<name>{name}</name>
<uuid>{uuid}</uuid>
<memory unit='MiB'>{MEMORY_MIB}</memory>
<vcpu>1</vcpu>
{os}
<features><acpi/><apic/></features>
<cpu mode='maximum'/>
<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>
<devices>
<emulator>/usr/bin/qemu-system-x86_64</emulator>
{drives}<interface type='bridge'><mac address='{mac}'/><source bridge='{BRIDGE}'/><model type='virtio'/>{rom}</interface>
<serial type='file'><source path='{console}' append='on'/><target port='0'/></serial>
<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
<memballoon model='none'/>
<video><model type='none'/></video>
</devices>
</domain>
"
        )
    }

    pub(crate) fn virsh(&self, verb: &str) -> Result<String, String> {
        virsh(&[verb, &self.name]).map(|text| text.trim().to_owned())
    }

    /// `running`, `shut off`.
    pub(crate) fn state(&self) -> Result<String, String> {
        self.virsh("domstate")
    }

    /// Another at each start.
    pub(crate) fn start_number(&self) -> Result<String, String> {
        self.virsh("domid")
    }

    /// As it will be started next.
    pub(crate) fn next_xml(&self) -> Result<String, String> {
        virsh(&["dumpxml", "--inactive", &self.name])
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read(&self.console)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Its first drive seems to hold a file system: the magic number of ext4 stands where it belongs.
    pub(crate) fn mark_as_ext4(&self) -> Result<(), String> {
        let first = self.drives.first().ok_or("no drive")?;
        let opened = File::options().write(true).open(first);
        opened.and_then(|file| file.write_all_at(&[0x53, 0xef], 0x438)).map_err(|e| e.to_string())
    }

    /// Whether anything was written on its drives.
    pub(crate) fn written(&self) -> Result<bool, String> {
        for drive in &self.drives {
            let path = drive.to_string_lossy();
            let allocated = run(std::process::Command::new("du").args(["-k", &path]))?;
            if !allocated.starts_with("0\t") {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        let _ = self.virsh("destroy");
        let _ = virsh(&["undefine", "--nvram", &self.name]);
        for drive in &self.drives {
            let _ = std::fs::remove_file(drive);
        }
    }
}

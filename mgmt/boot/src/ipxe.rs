//! Scripts for iPXE. What goes into one was checked before: versions, addresses and command lines hold no `$`.

use crate::images::Version;

/// The script that any iPXE begins with. It must also lie on the TFTP server as `autoexec.ipxe`: an iPXE that finds none there stops.
pub fn start(base: &str) -> String {
    format!(
        "#!ipxe\n\
         # Basalt boot service: tells who asks, gets what was decided.\n\
         isset ${{net0/ip}} || dhcp || goto failed\n\
         set tries:int32 0\n\
         :again\n\
         chain --replace {base}/boot/v1/script.ipxe?mac=${{netX/mac}}&uuid=${{uuid}}&arch=${{buildarch}}&platform=${{platform}} ||\n\
         inc tries\n\
         iseq ${{tries}} 5 && goto failed ||\n\
         echo Basalt: the boot service at {base} does not answer; trying again\n\
         sleep 5\n\
         goto again\n\
         :failed\n\
         echo Basalt: no boot service; going on with the next boot device\n\
         sleep 5\n\
         exit 1\n"
    )
}

/// Boots an image. BIOS takes kernel, initrd and root apart; UEFI takes the signed image whole, so Secure Boot holds.
pub fn boot(base: &str, version: &Version, cmdline: &str, bios: bool) -> String {
    let files = format!("{base}/boot/v1/files");
    let begin = format!("#!ipxe\necho Basalt {version} from {base}\n");
    let failed = "|| goto failed\n";
    let load = if bios {
        format!(
            "kernel {files}/basalt_{version}.vmlinuz {cmdline} basalt.boot={base} {failed}\
             initrd {files}/basalt_{version}.initrd {failed}\
             initrd {files}/basalt_{version}.root /root.img {failed}\
             boot {failed}"
        )
    } else {
        format!("chain {files}/basalt_{version}-netboot.efi {failed}")
    };
    format!(
        "{begin}{load}:failed\necho Basalt: the image could not be loaded; trying again in 10 s\nsleep 10\n\
         chain --replace {base}/boot/v1/start.ipxe || exit 1\n"
    )
}

/// Goes on with the node's own disk.
pub fn local(bios: bool) -> String {
    let go = if bios { "sanboot --no-describe --drive 0x80 || exit 1" } else { "exit 1" };
    format!("#!ipxe\necho Basalt: boot from disk was decided for this node\n{go}\n")
}

/// Says why and waits, so that a decision made meanwhile takes effect without a walk to the machine.
pub fn wait(base: &str, why: &str) -> String {
    let why: String = why.chars().filter(|c| !c.is_control() && !"$`|&;".contains(*c)).collect();
    format!("#!ipxe\necho Basalt: {why}\nsleep 30\nchain --replace {base}/boot/v1/start.ipxe || exit 1\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts() {
        let version = Version::parse("1.2.3").unwrap();
        let base = "http://10.0.0.1:8069";
        let bios = boot(base, &version, "quiet basalt.root=ab:1:cd", true);
        assert!(bios.contains(
            "kernel http://10.0.0.1:8069/boot/v1/files/basalt_1.2.3.vmlinuz quiet basalt.root=ab:1:cd basalt.boot=http://10.0.0.1:8069 || goto failed\n"
        ));
        assert!(bios.contains("initrd http://10.0.0.1:8069/boot/v1/files/basalt_1.2.3.root /root.img ||"));
        assert!(
            boot(base, &version, "", false)
                .contains("chain http://10.0.0.1:8069/boot/v1/files/basalt_1.2.3-netboot.efi ||")
        );
        assert!(start(base).contains("script.ipxe?mac=${netX/mac}&uuid=${uuid}"));
        for script in [bios, start(base), local(true), local(false), wait(base, "a\nb $x")] {
            assert!(script.starts_with("#!ipxe\n"));
            assert!(!script.contains("//boot"));
        }
    }
}

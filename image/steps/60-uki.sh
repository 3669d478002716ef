# Unified kernel images, signed for Secure Boot; and what BIOS network boot takes.
say "boot images"
NOT_AFTER=$((SOURCE_DATE_EPOCH + ${BASALT_IMAGE_DAYS:-365} * 86400))
# Lockdown keeps even root from changing the kernel; a panic reboots, so that the boot loader counts; the IOMMU is what
# holds drives in user space apart, and Debian leaves Intel's off. The timer is not tested against a clock, since a machine that is
# emulated, or shares its processors, loses ticks: with interrupt remapping the kernel then panics.
common="console=tty0 console=ttyS0,115200 quiet lockdown=integrity panic=10 intel_iommu=on no_timer_check basalt.root=$ROOT_HASH:$DATA_BLOCKS:$SALT ${BASALT_IMAGE_CMDLINE:-}"
common=${common% }
netboot="$common basalt.not_after=$NOT_AFTER"
name=basalt_$VERSION
printf '%s\n' "$common" >"$OUT/$name.cmdline"
cp "$TREE/usr/lib/os-release" "$WORK/os-release"
cp "$WORK/kernel/boot/vmlinuz-$KERNEL" "$OUT/$name.vmlinuz"

# One point of a boot: init seals and unseals at this and closes it behind itself (init/src/secret.rs).
measured=()
[ ! -e "$WORK/keys/pcr.key" ] || measured=(--pcr-private-key=/work/keys/pcr.key --pcr-public-key=/work/keys/pcr.pub --pcr-banks=sha256
    --phases=enter-initrd --tools=/usr/lib/systemd)

# $1: output; $2: command line; then initrds.
uki() {
    local output=$1 cmdline=$2 initrds=()
    shift 2
    for initrd; do initrds+=("--initrd=$initrd"); done
    at_source_time ukify build --linux="/work/out/$name.vmlinuz" "${initrds[@]}" --cmdline="$cmdline" --os-release=@/work/os-release \
        --uname="$KERNEL" --stub=/usr/lib/systemd/boot/efi/linuxx64.efi.stub --output="/work/out/$output" \
        ${measured[@]+"${measured[@]}"} --secureboot-private-key=/work/keys/secure-boot.key --secureboot-certificate=/work/keys/secure-boot.crt >/dev/null
}
uki "$name.efi" "$common" "/work/out/$name.initrd"
uki "$name-netboot.efi" "$netboot" "/work/out/$name.initrd" /work/root.cpio

# The digest of the root is on the command line: init compares it before anything of the root is used.
cat >"$OUT/$name.ipxe" <<END
#!ipxe
# BIOS network boot of Basalt $VERSION. The files lie beside this script.
kernel $name.vmlinuz initrd=initrd.magic $netboot basalt.root_sha256=$(sha256sum "$ROOT" | cut -d' ' -f1)
initrd $name.initrd
initrd $name.root /root.img
boot
END
say "boot images: slot $(du -h --apparent-size "$OUT/$name.efi" | cut -f1), whole OS $(du -h --apparent-size "$OUT/$name-netboot.efi" | cut -f1)"

# The disk image with both slots (A filled), and the ISO that runs from memory.
say "disk and ISO"
# Identifiers are derived, not drawn, so that equal inputs give equal bytes.
uuid() { printf 'basalt %s %s' "$VERSION" "$1" | sha256sum | sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-4\3-8\4-\5/'; }
esp=$WORK/esp
rm -rf "$esp" && mkdir -p "$esp"/EFI/{BOOT,systemd,Linux} "$esp/loader"
cp "$WORK/systemd-boot.efi" "$esp/EFI/BOOT/BOOTX64.EFI"
cp "$WORK/systemd-boot.efi" "$esp/EFI/systemd/systemd-bootx64.efi"
cp "$OUT/$name.efi" "$esp/EFI/Linux/$name+3.efi"
# No editor: the command line is part of what is signed.
printf 'timeout 0\neditor no\nauto-firmware no\nconsole-mode keep\n' >"$esp/loader/loader.conf"

# $1: image; $2: MiB; $3: label; $4: tree.
fat() {
    find "$WORK/${4#/work/}" -exec touch --date="@$SOURCE_DATE_EPOCH" {} +
    in_builder bash -euo pipefail -c '
        rm -f "$1" && truncate -s "$2M" "$1"
        mkfs.vfat --invariant -F 32 -n "$3" "$1" >/dev/null
        cd "$4" && mcopy -s -m -i "$1" $(ls | sort) ::/' - "$@"
}
fat /work/esp.fat 1024 BASALT-ESP /work/esp
disk=$OUT/$name.disk
rm -f "$disk" && truncate -s $((1 + 1024 + 512 + 512 + 512 + 1))M "$disk"
in_builder sfdisk --quiet "/work/out/$name.disk" <<END
label: gpt
label-id: $(uuid disk)
first-lba: 2048
size=1024MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=basalt-esp, uuid=$(uuid esp)
size=512MiB, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=basalt-root-a, uuid=$(uuid a)
size=512MiB, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=basalt-root-b, uuid=$(uuid b)
type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=basalt-state, uuid=$(uuid state)
END
# Where the partitions lie is asked of the table just written.
start_mib() { in_builder sfdisk --dump "/work/out/$name.disk" | sed -nE "s/.*start= *([0-9]+),.*name=\"$1\".*/\1/p" | awk '{print $1 / 2048}'; }
dd if="$WORK/esp.fat" of="$disk" bs=1M seek="$(start_mib basalt-esp)" conv=notrunc,sparse status=none
dd if="$ROOT" of="$disk" bs=1M seek="$(start_mib basalt-root-a)" conv=notrunc,sparse status=none

rm -rf "$WORK/iso" "$WORK/live" && mkdir -p "$WORK/live/EFI/BOOT" "$WORK/iso"
cp "$OUT/$name-netboot.efi" "$WORK/live/EFI/BOOT/BOOTX64.EFI"
fat /work/live.fat $(($(stat -c %s "$OUT/$name-netboot.efi") / 1048576 + 40)) BASALT-LIVE /work/live
cp "$WORK/os-release" "$WORK/iso/os-release"
find "$WORK/iso" -exec touch --date="@$SOURCE_DATE_EPOCH" {} +
in_builder xorriso -as mkisofs -quiet -V "BASALT" -append_partition 2 C12A7328-F81F-11D2-BA4B-00A0C93EC93B /work/live.fat -appended_part_as_gpt \
    -e --interval:appended_partition_2:all:: -no-emul-boot --gpt_disk_guid "$(uuid iso | tr -d -)" \
    -o "/work/out/$name.iso" /work/iso 2>/dev/null
# Firmware takes the boot image of a CD to reach to the end of the volume (its own length does not fit into the boot catalogue), and
# xorriso ends the volume before the appended partition: then there is nothing to boot. ECMA-119 8.4.8: blocks, both byte orders.
blocks=$(($(stat -c %s "$OUT/$name.iso") / 2048))
bytes=$(printf '\\x%02x' $((blocks & 255)) $((blocks >> 8 & 255)) $((blocks >> 16 & 255)) $((blocks >> 24)) \
    $((blocks >> 24)) $((blocks >> 16 & 255)) $((blocks >> 8 & 255)) $((blocks & 255)))
printf '%b' "$bytes" | dd of="$OUT/$name.iso" bs=1 seek=$((16 * 2048 + 80)) conv=notrunc status=none
rm -f "$WORK/esp.fat" "$WORK/live.fat"

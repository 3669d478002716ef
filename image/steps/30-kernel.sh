# Kernel, the modules that a storage server needs, and the firmware they ask for.

# $1: list of names; $2: where the chosen modules go, uncompressed (root and initrd are compressed as a whole).
choose_modules() {
    list "$1" >"$WORK/wanted-modules"
    in_builder bash -euo pipefail -c '
        kernel=$1 to=$2
        [ -d /work/kernel/lib ] || ln -s usr/lib /work/kernel/lib
        [ -e /work/kernel/lib/modules/$kernel/modules.dep ] || depmod -b /work/kernel "$kernel"
        mkdir -p "$to/lib/modules/$kernel"
        while read -r name; do
            modprobe -d /work/kernel -S "$kernel" --show-depends "$name" 2>/dev/null || echo "missing $name" >&2
        done </work/wanted-modules | sed -n "s#^insmod /work/kernel/lib/modules/[^/]*/\([^ ]*\).*#\1#p" | sort -u >/tmp/files
        while read -r file; do
            mkdir -p "$to/lib/modules/$kernel/$(dirname "$file")"
            xz -dc "/work/kernel/lib/modules/$kernel/$file" >"$to/lib/modules/$kernel/${file%.xz}"
        done </tmp/files
        cp /work/kernel/lib/modules/$kernel/modules.{order,builtin,builtin.modinfo} "$to/lib/modules/$kernel/"
        depmod -b "$to" "$kernel"
        # The binary indexes are for libkmod; init reads the text.
        rm -f "$to/lib/modules/$kernel/"*.bin "$to/lib/modules/$kernel/modules."{order,builtin,builtin.modinfo,symbols,devname,softdep,weakdep}' \
        - "$KERNEL" "$2"
}

# It depends on packages and lists alone, so it is the same for every version.
inputs=$(cat steps/30-kernel.sh modules-root.list modules-initrd.list && ls "$WORK/debs")
wanted=$(sha256sum <<<"$inputs")
if [ "$(cat "$WORK/kernel.made" 2>/dev/null)" != "$wanted" ]; then
    say "kernel, modules, firmware"
    rm -rf "$WORK/kernel" "$WORK/firmware" "$WORK/modules" && mkdir -p "$WORK/kernel" "$WORK/firmware" "$WORK/modules"
    # The package is taken apart: installing it would pull an initramfs generator.
    dpkg-deb -x "$WORK"/debs/linux-image-*.deb "$WORK/kernel"
    for deb in "$WORK"/debs/firmware-*.deb; do dpkg-deb -x "$deb" "$WORK/firmware"; done
    KERNEL=$(basename "$WORK"/kernel/usr/lib/modules/*)
    choose_modules modules-root.list /work/modules/root
    choose_modules modules-initrd.list /work/modules/initrd
    in_builder bash -euo pipefail -c 'find /work/modules/root -name "*.ko" -exec modinfo -F firmware {} + | sort -u' >"$WORK/wanted-firmware"
    echo "$wanted" >"$WORK/kernel.made"
fi
KERNEL=$(basename "$WORK"/kernel/usr/lib/modules/*)

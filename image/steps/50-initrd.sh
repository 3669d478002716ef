# Stage 1's initrd: init and the modules to reach a disk.
say "initrd"
INITRD=$OUT/basalt_$VERSION.initrd
stage1=$WORK/stage1
rm -rf "$stage1" && mkdir -p "$stage1"/{proc,sys,dev,run,newroot}
cp -r "$WORK/modules/initrd/lib" "$stage1/"
strip --strip-all -o "$stage1/init" "$PROGRAMS/basalt-init"
find "$stage1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
# Sorted names, fixed inodes and owners: equal inputs give equal bytes. Padded to 4 bytes, as archives are concatenated.
archive() { in_builder bash -euo pipefail -c 'cd "$1" && find . -mindepth 1 | sort | cpio --quiet -o -H newc --reproducible -R 0:0' - "$1"; }
pad4() { truncate -s %4 "$1"; }
archive /work/stage1 | in_builder zstd -q -"$((${BASALT_IMAGE_ZSTD:-9}))" -T1 >"$INITRD"
pad4 "$INITRD"
# The root as an archive of its own, for the whole-OS UKI.
rm -rf "$WORK/rootimg" && mkdir "$WORK/rootimg" && cp "$ROOT" "$WORK/rootimg/root.img"
touch --date="@$SOURCE_DATE_EPOCH" "$WORK/rootimg/root.img"
archive /work/rootimg >"$WORK/root.cpio"
pad4 "$WORK/root.cpio"
rm -rf "$WORK/rootimg"

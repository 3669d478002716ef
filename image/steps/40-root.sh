# The root: packages, our programs, squashfs, dm-verity.
say "root"
rm -rf "$TREE" && mkdir -p "$TREE"
for deb in "$WORK"/debs/*.deb; do
    case ${deb##*/} in linux-image-* | firmware-*) ;; *) dpkg-deb -x "$deb" "$TREE" ;; esac
done
# Debian's merged /usr, also where no package of ours brings the links.
for dir in bin sbin lib lib64; do
    [ -L "$TREE/$dir" ] || { mkdir -p "$TREE/usr/$dir"; [ ! -d "$TREE/$dir" ] || cp -a "$TREE/$dir/." "$TREE/usr/$dir/"; rm -rf "${TREE:?}/$dir"; ln -s "usr/$dir" "$TREE/$dir"; }
done
# What nobody reads in a node without a shell; licences stay (usr/share/doc/*/copyright).
find "$TREE/usr/share/doc" -type f ! -name copyright -delete
rm -rf "${TREE:?}"/usr/share/{man,info,locale,bash-completion,lintian,bug,menu,zsh,perl5,initramfs-tools,doc-base,polkit-1,dbus-1} \
    "$TREE"/usr/lib/x86_64-linux-gnu/gconv "$TREE"/usr/lib/{systemd,udev,tmpfiles.d,sysusers.d,init,cron.d} "$TREE"/etc/{init.d,cron*,default,apparmor.d,dpkg,logrotate.d,ca-certificates*,e2scrub.conf,nvme} "$TREE"/var
find "$TREE" -depth -type d -empty -delete
find "$TREE" \( -perm -4000 -o -perm -2000 \) -exec chmod a-s {} +
# No shell, by any name.
rm -f "$TREE"/usr/bin/{sh,bash,dash,rbash,ash,busybox} "$TREE"/usr/sbin/arpd
mkdir -p "$TREE"/{proc,sys,dev,run,var,tmp,boot,etc/ssl/certs} "$TREE"/usr/lib/{basalt/health.d,modules,firmware}
if [ -d "$TREE/usr/share/ca-certificates" ]; then
    find "$TREE/usr/share/ca-certificates" -name '*.crt' | sort | xargs cat >"$TREE/etc/ssl/certs/ca-certificates.crt"
    rm -rf "$TREE/usr/share/ca-certificates"
fi
cp -r root/. "$TREE/"
list modules-load.list >"$TREE/usr/lib/basalt/modules-load"
cp -r "$WORK/modules/root/lib/modules/." "$TREE/usr/lib/modules/"
while read -r file; do
    for found in "$WORK/firmware/usr/lib/firmware/"$file; do
        [ -e "$found" ] || continue
        name=${found#"$WORK/firmware/usr/lib/firmware/"}
        mkdir -p "$TREE/usr/lib/firmware/$(dirname "$name")"
        cp -L "$found" "$TREE/usr/lib/firmware/$name"
    done
done <"$WORK/wanted-firmware"
ln -sf /run/resolv.conf "$TREE/etc/resolv.conf"
cat >"$TREE/usr/lib/os-release" <<END
NAME="Basalt"
PRETTY_NAME="Basalt $VERSION"
ID=basalt
IMAGE_ID=basalt
VERSION_ID=$VERSION
IMAGE_VERSION=$VERSION
END
ln -sf ../usr/lib/os-release "$TREE/etc/os-release"
for name in basalt-dataplane basalt; do strip --strip-all -o "$TREE/usr/bin/$name" "$PROGRAMS/$name"; done
strip --strip-all -o "$TREE/usr/lib/basalt/init" "$PROGRAMS/basalt-init"
# The boot loader, for the disk image and for the disks that the image makes.
at_source_time sbsign --key /work/keys/secure-boot.key --cert /work/keys/secure-boot.crt --output /work/systemd-boot.efi \
    /usr/lib/systemd/boot/efi/systemd-bootx64.efi 2>/dev/null
install -m 644 "$WORK/systemd-boot.efi" "$TREE/usr/lib/basalt/systemd-bootx64.efi"
mkdir -p "$TREE/usr/share/basalt/keys"
cp "$KEYS/manifest.pub" "$TREE/usr/share/basalt/keys/manifest.pem"
# Every library that a program or library names is there: what a list forgot is found here and not at night.
missing=$(in_builder bash -euo pipefail -c '
    cd /work/tree
    find usr/lib usr/lib64 -name "*.so*" -printf "%f\n" | sort -u >/tmp/have
    { find usr/bin usr/sbin usr/lib -type f \( -perm -100 -o -name "*.so*" \) ! -path "*/modules/*" ! -path "*/firmware/*" -exec readelf -d {} + 2>/dev/null || true; } |
        sed -n "s/.*(NEEDED).*\[\(.*\)\].*/\1/p" | sort -u >/tmp/need
    comm -13 /tmp/have /tmp/need')
[ -z "$missing" ] || { echo "the root lacks libraries: $missing" >&2; exit 1; }

find "$TREE" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
in_builder bash -euo pipefail -c '
    rm -f /work/root.squashfs
    # Everything belongs to root: service users own nothing in a read-only image.
    mksquashfs /work/tree /work/root.squashfs -quiet -no-progress -all-root -no-xattrs -comp zstd -Xcompression-level "$1" -b 256K -noappend -no-exports' \
    - "${BASALT_IMAGE_ZSTD:-9}"

# The salt is derived from the version, so that equal inputs give equal bytes.
SALT=$(printf 'basalt %s' "$VERSION" | sha256sum | cut -d' ' -f1)
ROOT=$OUT/basalt_$VERSION.root
rm -f "$OUT"/basalt_* "$OUT"/manifest.json*
cp "$WORK/root.squashfs" "$ROOT"
truncate -s %4096 "$ROOT"
DATA_BLOCKS=$(($(stat -c %s "$ROOT") / 4096))
ROOT_HASH=$(in_builder veritysetup format --no-superblock --hash=sha256 --data-block-size=4096 --hash-block-size=4096 \
    --data-blocks="$DATA_BLOCKS" --hash-offset=$((DATA_BLOCKS * 4096)) --salt="$SALT" "/work/out/${ROOT##*/}" "/work/out/${ROOT##*/}" |
    sed -n 's/^Root hash:[[:space:]]*//p')
[ ${#ROOT_HASH} = 64 ] || { echo "veritysetup gave no root hash" >&2; exit 1; }
say "root: $(du -h --apparent-size "$ROOT" | cut -f1), tree $(du -sh "$TREE" | cut -f1), root hash $ROOT_HASH"

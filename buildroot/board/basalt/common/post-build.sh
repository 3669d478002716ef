#!/bin/sh
# The root is read-only: what is written lives in /var, on the state partition.
set -eu
mkdir -p "$TARGET_DIR/boot"
# /var is a directory and a mount, not links into /tmp.
rm -rf "${TARGET_DIR:?}/var"
mkdir -p "$TARGET_DIR/var"
cat >"$TARGET_DIR/etc/fstab" <<END
/dev/root / squashfs ro 0 0
PARTLABEL=basalt-state /var ext4 nosuid,nodev,noexec 0 2
END

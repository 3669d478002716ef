#!/bin/sh
# Lays out the disk: ESP with systemd-boot and a counted entry, two roots, state. $2 is the board.
set -eu
board=$2
here=$(dirname "$0")
case $board in
x86_64) kernel=bzImage ;;
aarch64) kernel=Image ;;
*)
	echo "no board $board" >&2
	exit 1
	;;
esac
entries="$BINARIES_DIR/efi-part/loader/entries"
mkdir -p "$entries"
cp "$BINARIES_DIR/$kernel" "$BINARIES_DIR/efi-part/basalt-a.kernel"
printf 'timeout 0\neditor no\n' >"$BINARIES_DIR/efi-part/loader/loader.conf"
cat >"$entries/basalt-a+3.conf" <<END
title Basalt
version 1
linux /basalt-a.kernel
options root=PARTLABEL=basalt-root-a rootfstype=squashfs ro rootwait panic=10 quiet
END
exec support/scripts/genimage.sh -c "$here/../$board/genimage.cfg"

# The builder chroot, and every package of the image in $WORK/debs.

# Debian's address as this host has it: whatever mirror, or copy of one, apt uses here.
mirror=$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null || true; } |
    sed -nE 's#^(URIs:|deb( \[[^]]*\])?) *(https?://[^ ]*/debian)/?( .*)?$#\3#p' | head -1)
[ -n "$mirror" ] || { echo "no Debian mirror in /etc/apt" >&2; exit 1; }
wanted=$(list packages/builder.list | paste -sd,)
if [ "$(cat "$WORK/builder.made" 2>/dev/null)" != "$wanted" ]; then
    say "builder: a Debian trixie chroot"
    rm -rf "$WORK/builder"
    mmdebstrap --quiet --variant=apt --mode=root --include="$wanted" --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        trixie "$WORK/builder" "deb $mirror trixie main non-free-firmware" "deb $mirror trixie-updates main non-free-firmware"
    echo "$wanted" >"$WORK/builder.made"
    rm -f "$WORK/debs.made"
fi

wanted=$(cat packages/kernel.list packages/root.list packages/never.list | sha256sum)
if [ "$(cat "$WORK/debs.made" 2>/dev/null)" != "$wanted" ]; then
    say "packages of the image"
    cp -L /etc/resolv.conf "$WORK/builder/etc/resolv.conf"
    mkdir -p "$WORK/debs"
    root=$(list packages/root.list | paste -sd' ') never=$(list packages/never.list | paste -sd' ')
    kernel=$(list packages/kernel.list | paste -sd' ')
    in_builder bash -euo pipefail -c '
        apt-get update -qq
        cd /work/debs
        # As if nothing were installed: the whole closure.
        apt-get -qq -o Dir::State::status=/dev/null --no-install-recommends --print-uris install $1 |
            sed -nE "s/^[^ ]+ ([^_]+)_.*/\1/p" | sort -u >/tmp/closure
        printf "%s\n" $2 | sort >/tmp/never
        packages=$(comm -23 /tmp/closure /tmp/never)
        for name in $3; do
            real=$(apt-cache depends "$name" | sed -n "s/.*Depends: \(linux-image-.*\)/\1/p")
            packages="$packages ${real:-$name}"
        done
        # Only what is wanted now stays; what is there already is not fetched again. Asked elsewhere: apt names no file that it sees.
        (cd /tmp && apt-get download -qq --print-uris $packages) | sed -E "s/^[^ ]+ ([^ ]+) .*/\1/" | sort >/tmp/files
        for deb in *.deb; do grep -qxF "$deb" /tmp/files || rm -f "$deb"; done
        missing=$(while read -r file; do [ -e "$file" ] || echo "${file%%_*}"; done </tmp/files)
        [ -z "$missing" ] || apt-get download -qq -o APT::Sandbox::User=root $missing' - "$root" "$never" "$kernel"
    echo "$wanted" >"$WORK/debs.made"
fi

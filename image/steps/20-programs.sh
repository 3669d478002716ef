# Our own programs. Paths of this machine do not get into them.
PROGRAMS=${BASALT_PROGRAMS:-$WORK/programs}
if [ -z "${BASALT_PROGRAMS:-}" ]; then
    say "programs: data plane, command and init"
    cargo_target=${BASALT_PROGRAMS_TARGET:-${CARGO_TARGET_DIR:-$REPO/target}}
    remap="--remap-path-prefix=$REPO=/basalt --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$cargo_target=/target"
    # With --target, the flags are for the product and not for build scripts.
    build() { (cd "$REPO" && CARGO_TARGET_DIR=$cargo_target CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="$1" \
        ${CARGO:-cargo} build --quiet --release --locked --target x86_64-unknown-linux-gnu "${@:2}"); }
    build "$remap" -p basalt-daemon -p basalt-cli
    # Static: in the initrd there is no C library.
    build "$remap -C target-feature=+crt-static" -p basalt-init
    mkdir -p "$PROGRAMS"
    for name in basalt-dataplane basalt basalt-init; do
        cp "$cargo_target/x86_64-unknown-linux-gnu/release/$name" "$PROGRAMS/"
    done
fi
for name in basalt-dataplane basalt basalt-init; do
    [ -x "$PROGRAMS/$name" ] || { echo "$PROGRAMS/$name is missing" >&2; exit 1; }
done
# In the initrd there is no C library.
! readelf -l "$PROGRAMS/basalt-init" | grep -q INTERP || { echo "$PROGRAMS/basalt-init is not static (-C target-feature=+crt-static)" >&2; exit 1; }

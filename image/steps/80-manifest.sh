# SBOM and signed manifest.
say "SBOM and manifest"
for deb in "$WORK"/debs/*.deb; do
    # shellcheck disable=SC2016
    printf '%s\t%s\n' "$(dpkg-deb --showformat='${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n' --show "$deb")" \
        "$(sha256sum "$deb" | cut -d' ' -f1)"
done | sort >"$WORK/debs.tsv"
(cd "$REPO" && for package in basalt-daemon basalt-cli basalt-init; do
    ${CARGO:-cargo} tree --locked -p $package -e normal --target x86_64-unknown-linux-gnu --prefix none --format '{p}|{l}'
done) | sed -E 's/ \(\*\)$//; s/ \(\/[^)]*\)//' | sort -u >"$WORK/crates.txt"
(cd "$REPO" && ${CARGO:-cargo} run --quiet --release -p basalt-image -- sbom --version "$VERSION" --time "$SOURCE_DATE_EPOCH" \
    --debs "$WORK/debs.tsv" --crates "$WORK/crates.txt") >"$OUT/$name.cdx.json"
(cd "$REPO" && ${CARGO:-cargo} run --quiet --release -p basalt-image -- manifest --version "$VERSION" --time "$SOURCE_DATE_EPOCH" --not-after "$NOT_AFTER" \
    --kernel "$KERNEL" --root "$ROOT_HASH:$DATA_BLOCKS:$SALT" --minimum-version "${BASALT_IMAGE_MINIMUM:-0.1.0}" \
    --hardware "${BASALT_IMAGE_HARDWARE:-*}" "$OUT"/basalt_*) >"$WORK/manifest.json"
mv "$WORK/manifest.json" "$OUT/manifest.json"
openssl pkeyutl -sign -rawin -inkey "$WORK/keys/manifest.key" -in "$OUT/manifest.json" -out "$OUT/manifest.json.sig"
rm -rf "$WORK/keys"

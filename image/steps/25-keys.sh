# Keys: the owner's, or test keys made here. Test keys stay below target/ and are never a default of anything shipped.
KEYS=${BASALT_IMAGE_KEYS:-$WORK/test-keys}
if [ -z "${BASALT_IMAGE_KEYS:-}" ] && [ ! -e "$KEYS/manifest.pub" ]; then
    say "test keys: $KEYS (BASALT_IMAGE_KEYS names the owner's)"
    mkdir -p "$KEYS"
    for name in platform exchange secure-boot; do
        openssl req -quiet -x509 -newkey rsa:2048 -nodes -days 3650 -sha256 -subj "/CN=Basalt test key, not for production: $name" \
            -keyout "$KEYS/$name.key" -out "$KEYS/$name.crt"
    done 2>/dev/null
    openssl genpkey -quiet -algorithm ed25519 -out "$KEYS/manifest.key" 2>/dev/null ||
        openssl genpkey -algorithm ed25519 -out "$KEYS/manifest.key"
    openssl pkey -in "$KEYS/manifest.key" -pubout -out "$KEYS/manifest.pub"
    openssl genrsa -out "$KEYS/pcr.key" 2048 2>/dev/null
fi
for name in secure-boot.key secure-boot.crt manifest.key; do
    [ -e "$KEYS/$name" ] || { echo "BASALT_IMAGE_KEYS: $KEYS/$name is missing" >&2; exit 1; }
done
[ -e "$KEYS/manifest.pub" ] || openssl pkey -in "$KEYS/manifest.key" -pubout -out "$KEYS/manifest.pub"
mkdir -p "$WORK/keys" && cp "$KEYS"/{secure-boot.key,secure-boot.crt,manifest.key} "$WORK/keys/"
# Signs what the boot stub will measure, so that TPMs can seal to the owner's images. Without it they seal nothing.
rm -f "$WORK"/keys/pcr.*
if [ -e "$KEYS/pcr.key" ]; then
    cp "$KEYS/pcr.key" "$WORK/keys/"
    openssl rsa -in "$KEYS/pcr.key" -pubout -out "$WORK/keys/pcr.pub" 2>/dev/null
else
    say "no pcr.key among the keys: nodes will have no secret sealed by their TPM"
fi

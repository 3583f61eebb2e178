#!/usr/bin/env bash
# Makes an image (OCI archive) of one static program, without a container engine.
# Usage: build.sh PROGRAM NAME:TAG OUT.tar
# Use:   ctr -n k8s.io images import OUT.tar   or   podman load -i OUT.tar
set -euo pipefail

if [ $# -ne 3 ] || [ ! -x "$1" ]; then
  echo "usage: $0 PROGRAM NAME:TAG OUT.tar (PROGRAM must be there and executable)" >&2
  exit 64
fi
program=$1 name=$2 out=$3
base=$(basename "$program")
if command -v ldd >/dev/null && ldd "$program" 2>/dev/null | grep -q '=>'; then
  echo "$0: $program is not static; build it with \`cargo xtask dist\`" >&2
  exit 64
fi
case $(uname -m) in
x86_64) arch=amd64 ;;
aarch64) arch=arm64 ;;
*) echo "$0: no image architecture is known for $(uname -m)" >&2; exit 64 ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
blobs=$work/image/blobs/sha256
mkdir -p "$blobs" "$work/root"
# The same input gives the same image: no times, owners or names of this machine in it.
pack() { tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$1" -cf "$2" "${@:3}"; }
digest() { sha256sum "$1" | cut -d' ' -f1; }
# put FILE: moves it to the blobs, leaves digest and size in $sum and $size.
put() { sum=$(digest "$1"); size=$(stat -c %s "$1"); mv "$1" "$blobs/$sum"; }

install -m 0755 "$program" "$work/root/$base"
pack "$work/root" "$work/layer.tar" "$base"
diff_id=$(digest "$work/layer.tar")
gzip -n -9 "$work/layer.tar"
put "$work/layer.tar.gz"
layer=$sum layer_size=$size

printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":["/%s"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
  "$arch" "$base" "$diff_id" >"$work/config"
put "$work/config"
config=$sum config_size=$size

type=application/vnd.oci.image
printf '{"schemaVersion":2,"mediaType":"%s.manifest.v1+json","config":{"mediaType":"%s.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"%s.layer.v1.tar+gzip","digest":"sha256:%s","size":%s}]}' \
  $type $type "$config" "$config_size" $type "$layer" "$layer_size" >"$work/manifest"
put "$work/manifest"

printf '{"schemaVersion":2,"manifests":[{"mediaType":"%s.manifest.v1+json","digest":"sha256:%s","size":%s,"platform":{"architecture":"%s","os":"linux"},"annotations":{"io.containerd.image.name":"%s","org.opencontainers.image.ref.name":"%s"}}]}' \
  $type "$sum" "$size" "$arch" "$name" "${name##*:}" >"$work/image/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$work/image/oci-layout"
pack "$work/image" "$work/out.tar" .
mv "$work/out.tar" "$out"
echo "$name: $(stat -c %s "$program") bytes of program, $(stat -c %s "$out") bytes of image in $out"

#!/usr/bin/env bash
# umoci 0.4.7 (Debian 12; changed upstream after that release, issue 436 there): layers of `umoci insert` are cut off.
#
# Expected: a layer is a tar archive as POSIX has it: blocks of 512 bytes, the last file filled up, two blocks of zeros.
# Seen: the layer of one inserted file of two bytes is 514 bytes long: one header and two bytes. Its digests are right,
#   umoci unpacks it, and GNU tar and Python's tarfile list the file and then fail: unexpected end.
# For a lab: an image with right digests may hold layers that only Go's reader takes; an error at the very end of a
#   layer, with all content read and its digest right, is no damage.
# Run on 2026-11-30, with CPython 3.11.7 and GNU tar 1.34.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
debian_packages 'umoci=0.4.7*'

cd "$work"
echo 1 >number
{
    umoci init --layout image
    umoci new --image image:one
    umoci insert --rootless --image image:one number /etc/number
    umoci unpack --rootless --image image:one bundle
    echo "umoci unpacks $(stat --format '%s bytes' bundle/rootfs/etc/number)"
    python3 - <<'EOF'
import gzip
import hashlib
import json
import pathlib
import tarfile

blobs = pathlib.Path("image/blobs/sha256")


def blob(descriptor):
    return (blobs / descriptor["digest"].removeprefix("sha256:")).read_bytes()


manifest = json.loads(blob(json.loads(pathlib.Path("image/index.json").read_bytes())["manifests"][0]))
layer = gzip.decompress(blob(manifest["layers"][0]))
pathlib.Path("layer.tar").write_bytes(layer)
right = json.loads(blob(manifest["config"]))["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
print("the layer is", len(layer), "bytes long, and its digest is", "right" if right else "wrong")
try:
    with tarfile.open("layer.tar") as archive:
        for member in archive:
            print("tarfile:", member.name)
except tarfile.TarError as error:
    print("tarfile:", error)
EOF
    LC_ALL=C tar --list --file layer.tar 2>&1 || echo "tar: exit status $?"
} >seen

as_recorded <<'EOF'
umoci unpacks 2 bytes
the layer is 514 bytes long, and its digest is right
tarfile: etc/number
tarfile: unexpected end of data
etc/number
tar: Unexpected EOF in archive
tar: Error is not recoverable: exiting now
tar: exit status 2
EOF

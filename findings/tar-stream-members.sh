#!/usr/bin/env bash
# backports.tarfile 1.2.0 (PyPI) and CPython's own tarfile (3.11, 3.12 and 3.13 tried), on a layer of gzip members: a
# stream ends after the first file.
#
# A gzip file is any number of members one after the other (RFC 1952). eStargz, the form of lazily pulled image layers,
# gives each file of a layer a member of its own, so that one can be fetched alone.
# Expected: mode 'r:gz' (seekable) and mode 'r|gz' (from a pipe, or from a registry's answer) list the same files.
# Seen: 'r:gz' and GNU tar list all three files; 'r|gz' and 'r|*' list one, and come to a clean end.
# For a lab: a layer that is read while it arrives must go through gzip.GzipFile first, or its files are silently lost.
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages backports.tarfile==1.2.0

cat >"$work/layer.py" <<'EOF'
import gzip
import sys
import tarfile

from backports import tarfile as backport

path = sys.argv[1]
with open(path, "wb") as layer:
    for name in ("etc/one", "etc/two", "etc/three"):
        info = tarfile.TarInfo(name)
        content = name.encode()
        info.size = len(content)
        layer.write(gzip.compress(info.tobuf() + content.ljust(512, b"\0"), mtime=0))
    layer.write(gzip.compress(bytes(1024), mtime=0))

for module in (backport, tarfile):
    for mode in ("r:gz", "r|gz", "r|*"):
        with open(path, "rb") as layer, module.open(fileobj=layer, mode=mode) as archive:
            print(f"{module.__name__:17} {mode:4}", *archive.getnames())
EOF
{
    "$python" "$work/layer.py" "$work/layer.tar.gz"
    echo "GNU tar                $(tar --list --gzip --file "$work/layer.tar.gz" | paste -sd' ' -)"
} >"$work/seen"

as_recorded <<'EOF'
backports.tarfile r:gz etc/one etc/two etc/three
backports.tarfile r|gz etc/one
backports.tarfile r|*  etc/one
tarfile           r:gz etc/one etc/two etc/three
tarfile           r|gz etc/one
tarfile           r|*  etc/one
GNU tar                etc/one etc/two etc/three
EOF

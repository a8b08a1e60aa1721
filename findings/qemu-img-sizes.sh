#!/usr/bin/env bash
# qemu-img 7.2 (Debian 12's qemu-utils): a disk changes its size when it is converted, and compares as identical.
#
# Expected: `convert` keeps the virtual size in every format that can have it; `compare` of disks of two sizes fails.
# Seen: to `vpc` (VHD, Azure's and Hyper-V's format) 1 MiB becomes 1079296 bytes, since the size is rounded up to a
#   geometry of cylinders, heads and sectors, unless force_size=on; vhdx, vdi, vmdk and qcow2 keep it. `compare` tells
#   the two as identical, exit status 0 (with a warning), as long as the rest is zeros; only with -s is it 1.
# For a lab: a guest's disk that has been through another format has other figures for size; `compare` in a check wants
#   -s.
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
debian_packages 'qemu-utils=1:7.2*'

cd "$work"
size() {
    qemu-img info --output=json "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["virtual-size"])'
}
compare() {
    local status=0
    qemu-img compare "$@" || status=$?
    echo "compare $*: exit status $status"
}
{
    qemu-img create -q -f raw disk.raw 1M
    for format in qcow2 vdi vhdx vmdk vpc; do
        qemu-img convert -f raw -O "$format" disk.raw "disk.$format"
        echo "$format $(size "disk.$format")"
    done
    qemu-img convert -f raw -O vpc -o force_size=on disk.raw forced.vpc
    echo "vpc with force_size $(size forced.vpc)"
    compare disk.raw disk.vpc
    compare -s disk.raw disk.vpc
} >seen 2>&1

as_recorded <<'EOF'
qcow2 1048576
vdi 1048576
vhdx 1048576
vmdk 1048576
vpc 1079296
vpc with force_size 1048576
Warning: Image size mismatch!
Images are identical.
compare disk.raw disk.vpc: exit status 0
Strict mode: Image size mismatch!
compare -s disk.raw disk.vpc: exit status 1
EOF

#!/usr/bin/env bash
# systemd-nspawn 252 and LXC 5.0 (Debian): a boot id that is not the host's is no other kernel.
#
# /proc/sys/kernel/random/boot_id is 'a random string generated at each boot' of the kernel (random(4)), and is what tools
# compare to learn whether two processes run on one kernel.
# Expected: in a container it is the host's, as in Docker's and runc's.
# Seen: both put a file with a random one of the container's own over it. What does tell is a namespace's number, which the
#   host sees of the container's process as well.
# For a lab: a kernel is shared where the host sees a process in the PID namespace that was told from inside.
# Run on 2026-12-01, as root, in a network of the container's own.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
if [ "$(id -u)" != 0 ] || ! command -v systemd-nspawn lxc-start busybox >/dev/null; then
    echo "$name: needs root, and the packages systemd-container, lxc and busybox-static" >&2
    exit 2
fi
mkdir -p "$work/tree/usr" "$work/tree/bin" "$work/tree/proc" "$work/tree/sys" "$work/tree/dev" "$work/lxc/c"
cp "$(command -v busybox)" "$work/tree/bin/sh"
cat >"$work/lxc/c/config" <<EOF
lxc.rootfs.path = dir:$work/tree
lxc.mount.auto = proc:mixed
lxc.net.0.type = empty
lxc.console.path = none
EOF
script='read -r id </proc/sys/kernel/random/boot_id; echo "$id"'
host=$(cat /proc/sys/kernel/random/boot_id)
nspawn() {
    systemd-nspawn --quiet --register=no --keep-unit --private-network --console=pipe --resolv-conf=off --timezone=off \
        --link-journal=no -D "$work/tree" /bin/sh -c "$1" </dev/null
}
one=$(nspawn "$script") other=$(lxc-start -F -P "$work/lxc" -n c -- /bin/sh -c "$script" </dev/null)
{
    echo "systemd-nspawn: the host's boot id: $([ "$one" = "$host" ] && echo yes || echo no)"
    echo "LXC: the host's boot id: $([ "$other" = "$host" ] && echo yes || echo no)"
} >"$work/seen"
as_recorded <<'EOF'
systemd-nspawn: the host's boot id: no
LXC: the host's boot id: no
EOF

#!/usr/bin/env bash
# Takes the tables of docs/teaching.md anew: two public lab sheets, by hand as they ask, and with the lab.
#
#   sheets.sh [ROUNDS] [GUEST_ROUNDS]     default 10 and 6; needs Docker, libvirt and what nginx-image.sh needs
#
# LAB names the command (default: lab); the runs go to its store. A whole guest boots for minutes where it is emulated:
# GUEST_ROUNDS 0 leaves it out, and so does a missing disk (`lab guest build`).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
rounds=${1:-10}
guest_rounds=${2:-6}
lab=${LAB:-lab}
image=stratalab-teaching/nginx
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

heading() { printf '\n== %s (load %s on %s CPUs)\n' "$1" "$(cut -d' ' -f1-3 /proc/loadavg)" "$(nproc)"; }

"$here/nginx-image.sh" >/dev/null

heading 'By hand'
"$here/by-hand.sh" "$rounds"

heading 'nginx in a container and as the root of a guest: boot'
"$lab" run boot -t docker,libvirt:q35 --image "$image:1" --port 80 --rounds "$rounds" 2>"$scratch/errors" || cat "$scratch/errors"

heading 'nginx that prepares first, in a container: boot'
"$lab" run boot -t docker --image "$image:prepares" --port 80 --rounds "$rounds" 2>"$scratch/errors" || cat "$scratch/errors"

heading 'nginx in a container and as the root of a guest: memory'
"$lab" run memory -t docker,libvirt:q35 --image "$image:1" --port 80 --rounds 6 2>"$scratch/errors" || cat "$scratch/errors"

if [ "$guest_rounds" -gt 0 ]; then
  heading 'nginx as a unit of a whole Debian: boot'
  container=$(docker create "$image:1")
  docker cp --quiet "$container:/usr/sbin/nginx" "$scratch/nginx" 2>/dev/null || docker cp "$container:/usr/sbin/nginx" "$scratch/nginx"
  docker rm "$container" >/dev/null
  "$lab" run boot -t libvirt:debian --unit "$here/nginx.service" --port 80 --rounds "$guest_rounds" --warmup 0 \
    --copy "$scratch/nginx:/usr/sbin/nginx" --copy "$here/nginx.conf:/etc/nginx/nginx.conf" 2>"$scratch/errors" || cat "$scratch/errors"
fi

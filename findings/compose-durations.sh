#!/usr/bin/env bash
# podman-compose 1.6.0 (PyPI): of the durations that Compose knows, it reads minutes and seconds.
#
# Compose writes durations as '1h5m30s20ms' (units us, ms, s, m, h), for example in stop_grace_period.
# Expected: each is so many seconds, or is refused.
# Seen: one with hours or milliseconds is nothing, silently; the caller then gives 'podman stop' no time at all, and ten
#   seconds are podman's default. Fractions are cut off: 1.5s is 1. '1:30', which Compose has not, is read.
# For a lab: the same file kills a service after 10 s under one tool and waits an hour under another; `stop` times of
#   the two are not comparable.
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages podman-compose==1.6.0

"$python" - >"$work/seen" <<'EOF'
from podman_compose import str_to_seconds

for duration in ("1m30s", "90s", "1.5s", "1h", "1h30m", "1500ms", "1m500ms", "1:30"):
    print(f"{duration:8}", str_to_seconds(duration))
EOF

as_recorded <<'EOF'
1m30s    90
90s      90
1.5s     1
1h       None
1h30m    None
1500ms   None
1m500ms  None
1:30     90
EOF

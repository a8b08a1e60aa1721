#!/usr/bin/env bash
# docker 7.2.0, humanfriendly 10.0, kubernetes 37.0.2, Pint 0.25.3 (PyPI): one memory size, up to four values.
#
# '128m' is usual for containers, '128Mi' for pods, '128MiB' in output for people.
# Expected: a library takes a suffix for what it is, in one of the two systems (1000 or 1024), or refuses it.
# Seen: humanfriendly takes 'MiB' for 1024^2 but 'Mi' for 1000^2, as if the i were not there; docker's SDK takes 'm' and
#   'mb' and refuses 'Mi' and 'MiB'; for Kubernetes '128m' are 0.128 bytes, and '1e3' and '1E' are 1000 and 10^18; Pint
#   reads '512M' as molar, '1G' as gauss, '1k' as Boltzmann's constant and '128m' as metres, without a complaint.
# For a lab: sizes are parsed by the rules of the one tool that they came from; no general library reads all of them.
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages docker==7.2.0 humanfriendly==10.0 kubernetes==37.0.2 Pint==0.25.3

"$python" - >"$work/seen" <<'EOF'
import docker.errors
import docker.utils
import humanfriendly
import kubernetes.utils
import pint

units = pint.UnitRegistry()
REFUSALS = (docker.errors.DockerException, humanfriendly.InvalidSize, ValueError, pint.UndefinedUnitError)
READERS = {
    "docker": docker.utils.parse_bytes,
    "humanfriendly": humanfriendly.parse_size,
    "kubernetes": lambda text: f"{kubernetes.utils.parse_quantity(text):f}",
    "pint": lambda text: f"{units(text):D}",
}
for text in ("128m", "128mb", "128Mi", "128MiB", "512M", "1G", "1k", "1e3", "1E"):
    values = []
    for reader, read in READERS.items():
        try:
            values.append(f"{reader} {read(text)}")
        except REFUSALS:
            values.append(f"{reader} refuses")
    print(f"{text:6}", "; ".join(values))
EOF

as_recorded <<'EOF'
128m   docker 134217728; humanfriendly 128000000; kubernetes 0.128; pint 128 meter
128mb  docker 134217728; humanfriendly 128000000; kubernetes refuses; pint 128 millibarn
128Mi  docker refuses; humanfriendly 128000000; kubernetes 134217728; pint refuses
128MiB docker refuses; humanfriendly 134217728; kubernetes refuses; pint 128 mebibyte
512M   docker 536870912; humanfriendly 512000000; kubernetes 512000000; pint 512 molar
1G     docker 1073741824; humanfriendly 1000000000; kubernetes 1000000000; pint 1 gauss
1k     docker 1024; humanfriendly 1000; kubernetes 1000; pint 1 boltzmann_constant
1e3    docker 1000; humanfriendly refuses; kubernetes 1000; pint 1000.0 dimensionless
1E     docker refuses; humanfriendly 1000000000000000000; kubernetes 1000000000000000000; pint refuses
EOF

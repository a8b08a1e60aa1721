#!/usr/bin/env bash
# podman-compose 1.6.0 (PyPI, over PyYAML): numbers of YAML 1.1 in a Compose file.
#
# A Compose file may leave values unquoted: `- 2222:22` is a port's short syntax, `WHEN: 12:30` a variable.
# Expected: what is written, as readers of YAML 1.2 have it (there is no number to the base 60 any more), or a refusal.
# Seen: 2222:22 is the one port 133342 and 12:30 is 750, to the base 60; 0755 is 493; `no` is false. 8080:80 is a text,
#   since 80 is no digit to that base, so that one port of two is right. Nothing is said.
# For a lab: values of a Compose file are taken as they are written, whatever YAML would make of them
#   (scenarios/application/compose.py); two tools may start the same file at other ports, with other variables.
# Run on 2026-12-01.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages podman-compose==1.6.0

cat >"$work/compose.yaml" <<'EOF'
services:
  web:
    image: w
    ports:
      - 2222:22
      - 8080:80
    environment:
      ANSWER: no
      OCTAL: 0755
      WHEN: 12:30
EOF
"$python" -m podman_compose -f "$work/compose.yaml" config 2>/dev/null >"$work/seen"

as_recorded <<'EOF'
services:
  web:
    environment:
      ANSWER: false
      OCTAL: 493
      WHEN: 750
    image: w
    ports:
    - 133342
    - 8080:80

EOF

#!/usr/bin/env bash
# kubernetes 37.0.2 (PyPI): Watch over a pod's log loses what follows the last line feed.
#
# A pod's log is bytes; a program that ends, or that is killed, often leaves its last line without a line feed.
# Expected: Watch().stream(read_namespaced_pod_log, ...) gives the lines of what read_namespaced_pod_log gives.
# Seen: the unfinished last line is not given, though the server has sent it and closed the answer in good order.
# For a lab: of a service that dies with one word on its output, the word is missing from the reason that is shown.
# Run on 2026-11-30, against a stub on 127.0.0.1.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages kubernetes==37.0.2

"$python" - >"$work/seen" <<'EOF'
from kubernetes import client, watch
from stub import serving

with serving(lambda path: ("text/plain", b"starting\n\nfatal: no such bucket")) as url:
    core = client.CoreV1Api(client.ApiClient(client.Configuration(host=url)))
    print("read ", repr(core.read_namespaced_pod_log("pod", "default")))
    print("watch", list(watch.Watch().stream(core.read_namespaced_pod_log, "pod", "default", follow=True)))
EOF

as_recorded <<'EOF'
read  'starting\n\nfatal: no such bucket'
watch ['starting', '']
EOF

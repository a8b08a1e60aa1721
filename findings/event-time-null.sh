#!/usr/bin/env bash
# kubernetes 37.0.2 with pydantic 2.14.4 (PyPI): EventsV1Api cannot read the events of older recorders.
#
# The API server serves one store of events as v1 and as events.k8s.io/v1. An event of the older kind of recorder, as
# kubelets write them, has its time in deprecatedFirstTimestamp, and eventTime null.
# Expected: the newer API's client lists all events, since its server does; the two clients agree.
# Seen: CoreV1Api lists the event with event_time None; EventsV1Api raises a ValidationError, and the whole list is
#   lost.
# For a lab: instants of a pod's launch (Scheduled, Pulled, Started) come from CoreV1Api or from the raw answer only.
# Run on 2026-11-30, against a stub on 127.0.0.1.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages kubernetes==37.0.2 pydantic==2.14.4

"$python" - >"$work/seen" <<'EOF'
import json

from kubernetes import client
from stub import serving

COMMON = {"metadata": {"name": "pod.17a", "namespace": "default"}, "eventTime": None, "reason": "Started"}
NEWER = COMMON | {"deprecatedFirstTimestamp": "2026-11-30T12:00:00Z"}
OLDER = COMMON | {"firstTimestamp": "2026-11-30T12:00:00Z", "involvedObject": {}}


def events(path):
    newer = path.startswith("/apis/events.k8s.io/v1/")
    version, event = ("events.k8s.io/v1", NEWER) if newer else ("v1", OLDER)
    listing = {"kind": "EventList", "apiVersion": version, "metadata": {"resourceVersion": "1"}, "items": [event]}
    return "application/json", json.dumps(listing).encode()


with serving(events) as url:
    api = client.ApiClient(client.Configuration(host=url))
    for one in (client.CoreV1Api(api), client.EventsV1Api(api)):
        try:
            (event,) = one.list_namespaced_event("default").items
            print(type(one).__name__, event.reason, event.event_time)
        except ValueError as error:
            print(type(one).__name__, type(error).__name__, "|", *str(error).splitlines()[:2])
EOF

as_recorded <<'EOF'
CoreV1Api Started None
EventsV1Api ValidationError | 1 validation error for EventsV1Event eventTime
EOF

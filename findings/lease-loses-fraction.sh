#!/usr/bin/env bash
# kubernetes 37.0.2 (PyPI): a Lease that is read and written back has another time format, once in a million.
#
# The times of a Lease (and of an event) are MicroTime: RFC 3339 with six digits of fraction, which the API server's own
# parser (apimachinery's RFC3339Micro) wants to see.
# Expected: what the client has read it writes as it was; a datetime without a zone is refused, or sent as UTC.
# Seen: at a whole second the fraction is left out, so that the write is no MicroTime; a datetime without a zone goes
#   out without one, which is no RFC 3339.
# For a lab: a lock or heartbeat in a Lease is refused about once in 10^6 renewals, never in tests; set microsecond to 1
#   where it is 0, and make times with datetime.now(timezone.utc).
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages kubernetes==37.0.2

"$python" - >"$work/seen" <<'EOF'
import datetime
import json

from kubernetes import client

api = client.ApiClient()
for read in ("2026-11-30T12:00:00.000001Z", "2026-11-30T12:00:00.000000Z"):
    answer = json.dumps({"metadata": {"name": "lock"}, "spec": {"renewTime": read}})
    lease = api.deserialize(answer, "V1Lease", "application/json")
    print("read", read, "write", api.sanitize_for_serialization(lease)["spec"]["renewTime"])
print("no zone", api.sanitize_for_serialization(datetime.datetime(2026, 11, 30, 12, 0, 0, 5)))
EOF

as_recorded <<'EOF'
read 2026-11-30T12:00:00.000001Z write 2026-11-30T12:00:00.000001+00:00
read 2026-11-30T12:00:00.000000Z write 2026-11-30T12:00:00+00:00
no zone 2026-11-30T12:00:00.000005
EOF

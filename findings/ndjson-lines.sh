#!/usr/bin/env bash
# httpx 0.28.1 and requests 2.34.2 (PyPI): iter_lines() tears a line of JSON where the JSON has none of its breaks.
#
# Engines stream one JSON document a line (events, build output, watches). JSON allows U+2028 and U+0085 in a string as
# they are; only the line feed ends a document.
# Expected: three documents give three lines.
# Seen: httpx's iter_lines(), and requests' with decode_unicode=True, cut as str.splitlines() does: five pieces, four of
#   them no JSON. requests on bytes, and docker 7.2.0's json_stream, give three.
# For a lab: one such character in a container's label or log ends a watch; split bytes at b"\n".
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages httpx==0.28.1 requests==2.34.2 docker==7.2.0

"$python" - >"$work/seen" <<'EOF'
import io
import json

import httpx
import requests
from docker.utils.json_stream import json_stream

BODY = '{"label":"one\u2028two"}\n{"label":"one\u0085two"}\n{"label":"three"}\n'.encode()


def by_requests():
    answer = requests.Response()
    answer.raw, answer.encoding = io.BytesIO(BODY), "utf-8"
    return answer


def tell(way, lines):
    readable = 0
    for line in lines:
        try:
            json.loads(line)
            readable += 1
        except ValueError:
            pass
    print(f"{way:18} {len(lines)} lines, {readable} of them JSON")


tell("httpx", list(httpx.Response(200, content=BODY).iter_lines()))
tell("requests, decoded", list(by_requests().iter_lines(decode_unicode=True)))
tell("requests, bytes", list(by_requests().iter_lines()))
print(f"{'docker':18} {len(list(json_stream([BODY])))} documents")
EOF

as_recorded <<'EOF'
httpx              5 lines, 1 of them JSON
requests, decoded  5 lines, 1 of them JSON
requests, bytes    3 lines, 3 of them JSON
docker             3 documents
EOF

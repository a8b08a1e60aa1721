#!/usr/bin/env bash
# botocore 1.44.8 with boto3 1.44.8 (PyPI): one `invoke` of a function that outlasts the read timeout calls it three
# times.
#
# A function may run for minutes; the client's read timeout is 60 s unless it is set. A call is not idempotent.
# Expected: a read timeout of a call raises, and the function has been called once; max_attempts=1 is one attempt.
# Seen: three calls in the default mode ('standard'; five in 'legacy'), then the error, which does not say how many.
#   'max_attempts' counts the retries (1 gives two calls) and 'total_max_attempts' the calls; and Config rewrites the
#   caller's own dict from the one into the other.
# For a lab: a cold start by `invoke` needs total_max_attempts=1 and a read timeout above the function's own, or the
#   one sample holds three calls and perhaps three cold starts.
# Run on 2026-11-30, against a stub on 127.0.0.1.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages boto3==1.44.8 botocore==1.44.8
unset AWS_PROFILE AWS_RETRY_MODE AWS_MAX_ATTEMPTS
export AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null

"$python" - >"$work/seen" <<'EOF'
import http.server
import threading

import boto3
import botocore.config
import botocore.exceptions

calls = 0
over = threading.Event()


class Function(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        global calls
        calls += 1
        over.wait(30)

    def log_message(self, *_):
        pass


def invoke(retries):
    global calls
    calls = 0
    given = repr(retries)
    client = boto3.client(
        "lambda",
        endpoint_url=f"http://127.0.0.1:{server.server_port}",
        region_name="eu-central-1",
        aws_access_key_id="stub",
        aws_secret_access_key="stub",
        config=botocore.config.Config(read_timeout=0.3, retries=retries),
    )
    try:
        client.invoke(FunctionName="slow")
    except botocore.exceptions.ReadTimeoutError as error:
        print(f"retries={given}: {calls} calls, {type(error).__name__}; the dict is now {retries}")


with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Function) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for retries in (None, {"mode": "legacy"}, {"max_attempts": 1}, {"total_max_attempts": 1}):
        invoke(retries)
    over.set()
    server.shutdown()
EOF

as_recorded <<'EOF'
retries=None: 3 calls, ReadTimeoutError; the dict is now None
retries={'mode': 'legacy'}: 5 calls, ReadTimeoutError; the dict is now {'mode': 'legacy'}
retries={'max_attempts': 1}: 2 calls, ReadTimeoutError; the dict is now {'total_max_attempts': 2, 'mode': 'standard'}
retries={'total_max_attempts': 1}: 1 calls, ReadTimeoutError; the dict is now {'total_max_attempts': 1, 'mode': 'standard'}
EOF

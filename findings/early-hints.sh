#!/usr/bin/env bash
# requests 2.34.2, urllib3 2.8.0, httpx 0.28.1, aiohttp 3.14.5 (PyPI) and CPython's urllib: whose answer is a 103?
#
# A server may send interim answers (1xx: 102 Processing, 103 Early Hints) before the answer itself; a client must be
# able to take one or more of them (RFC 9110, section 15.2).
# Expected: clients pass over every 1xx, as they pass over 100.
# Seen: requests, urllib3 and urllib, all on http.client, pass over 100 alone, and give 102 or 103 as the final answer,
#   with an empty body; urllib raises it as an error. httpx and aiohttp give the 200 that follows.
# For a lab: a `ready` that is judged by requests, or through an SDK that is built on it, is judged by a hint.
# Run on 2026-11-30, with CPython 3.11.7.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages requests==2.34.2 urllib3==2.8.0 httpx==0.28.1 aiohttp==3.14.5

"$python" - >"$work/seen" <<'EOF'
import asyncio
import socketserver
import threading
import urllib.error
import urllib.request

import aiohttp
import httpx
import requests
import urllib3

INTERIM = {"100": "Continue", "102": "Processing", "103": "Early Hints"}


class Answers(socketserver.StreamRequestHandler):
    def handle(self):
        status = self.rfile.readline().split(b"/")[1][:3].decode()
        while self.rfile.readline().strip():
            pass
        self.wfile.write(f"HTTP/1.1 {status} {INTERIM[status]}\r\nLink: </a.css>; rel=preload\r\n\r\n".encode())
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nready")


def by_requests(url):
    answer = requests.get(url, timeout=5)
    return answer.status_code, answer.content


def by_urllib3(url):
    answer = urllib3.PoolManager().request("GET", url, timeout=5, retries=False)
    return answer.status, answer.data


def by_urllib(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return type(error).__name__, error.code


def by_httpx(url):
    answer = httpx.get(url, timeout=5)
    return answer.status_code, answer.content


def by_aiohttp(url):
    async def get():
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.read()

    return asyncio.run(asyncio.wait_for(get(), 5))


with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answers) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for interim in INTERIM:
        for client in (by_requests, by_urllib3, by_urllib, by_httpx, by_aiohttp):
            print(interim, client.__name__, *client(f"http://127.0.0.1:{server.server_address[1]}/{interim}"))
    server.shutdown()
EOF

as_recorded <<'EOF'
100 by_requests 200 b'ready'
100 by_urllib3 200 b'ready'
100 by_urllib 200 b'ready'
100 by_httpx 200 b'ready'
100 by_aiohttp 200 b'ready'
102 by_requests 102 b''
102 by_urllib3 102 b''
102 by_urllib HTTPError 102
102 by_httpx 200 b'ready'
102 by_aiohttp 200 b'ready'
103 by_requests 103 b''
103 by_urllib3 103 b''
103 by_urllib HTTPError 103
103 by_httpx 200 b'ready'
103 by_aiohttp 200 b'ready'
EOF

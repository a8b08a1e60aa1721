#!/usr/bin/env bash
# Chromium 156's DevTools protocol (websocket-client 1.9.2): pictures of a tab that is behind another.
#
# `Page.captureScreenshot` takes a picture of what is seen; with `captureBeyondViewport` of more than fits the window.
# Expected: both answer for a tab behind another, or both say why not.
# Seen: of the viewport there is a picture at once; beyond it the call has no answer, no error and no event, for as long
#   as the tab stays behind. The command that is sent next is answered; `Page.bringToFront` has the picture come.
# For a lab: a test with two viewers hung until its limit, in the tab that was opened first. A tab is brought to the
#   front before each picture.
# Run on 2026-12-01.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
browser=$(command -v chromium || command -v chromium-headless-shell) || {
    echo "$name: needs chromium or chromium-headless-shell" >&2
    exit 2
}
python_packages websocket-client==1.9.2

cat >"$work/try.py" <<'EOP'
import json, os, signal, subprocess, sys, time, urllib.request
from pathlib import Path

import websocket

profile = Path(sys.argv[2])
command = [sys.argv[1], "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
child = subprocess.Popen(
    [*command, f"--user-data-dir={profile}", "about:blank"], start_new_session=True, stderr=subprocess.DEVNULL
)


class Tab:
    def __init__(self, port):
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?data:text/html,page", method="PUT")
        told = json.load(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked))
        self.socket = websocket.create_connection(told["webSocketDebuggerUrl"], suppress_origin=True)
        self.number = 0

    def send(self, method, **parameters):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        return self.number

    def answered(self, number, within_s):
        self.socket.settimeout(within_s)
        try:
            while True:
                told = json.loads(self.socket.recv())
                if told.get("id") == number:
                    return "error" if "error" in told else "picture" if "data" in told["result"] else "answer"
        except websocket.WebSocketTimeoutException:
            return "nothing"


try:
    file = profile / "DevToolsActivePort"
    while not (file.exists() and "\n" in file.read_text()):
        time.sleep(0.05)
    port = file.read_text().splitlines()[0]
    behind, front = Tab(port), Tab(port)
    time.sleep(1)
    for name, tab in (("in front", front), ("behind", behind)):
        for beyond in (False, True):
            sent = tab.send("Page.captureScreenshot", captureBeyondViewport=beyond)
            what = "beyond the viewport" if beyond else "of the viewport"
            print(f"a tab {name}, {what}: {tab.answered(sent, 15)}", flush=True)
    print("the command after it:", behind.answered(behind.send("Page.enable"), 15))
    behind.send("Page.bringToFront")
    print("once it is in front:", behind.answered(sent, 15))
finally:
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
EOP
"$python" "$work/try.py" "$browser" "$work/profile" >"$work/seen"

as_recorded <<'EOF'
a tab in front, of the viewport: picture
a tab in front, beyond the viewport: picture
a tab behind, of the viewport: picture
a tab behind, beyond the viewport: nothing
the command after it: answer
once it is in front: picture
EOF

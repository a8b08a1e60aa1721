"""A real Chromium without a window, driven by its DevTools protocol (chromedevtools.github.io/devtools-protocol)."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import websocket

PROGRAMS = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
_BEGIN_S = 60.0


def program() -> str | None:
    """The browser of this machine, if it has one."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Tab:
    """One page, in a profile of its own that knows no network but this host's."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket = socket
        self._number = itertools.count(1)
        self.complaints: list[str] = []
        self.requested: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol."""
        number = next(self._number)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            told = json.loads(self._socket.recv())
            self._hear(told)
            if told.get("id") == number:
                assert "error" not in told, told
                return dict(told["result"])

    def open(self, address: str, *, until: str = "document.readyState === 'complete'") -> None:
        """Go there, and wait until the expression holds."""
        self.call("Page.navigate", url=address)
        self.wait(f"location.href === {json.dumps(address)} && ({until})")

    def eval(self, expression: str) -> Any:
        """Its value, or its promise's."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str, *, timeout_s: float = 60.0) -> None:
        """Until it holds."""
        until = time.monotonic() + timeout_s
        while not self.eval(expression):
            assert time.monotonic() < until, f"in vain: {expression}: {self.eval('document.body.innerText')}"
            time.sleep(0.05)

    def look(self, width: int, height: int, *, scheme: str = "light", mobile: bool = False, motion: str = "") -> None:
        """Be a screen of that size and scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call(
            "Emulation.setEmulatedMedia", features=[*features, {"name": "prefers-reduced-motion", "value": motion}]
        )

    def key(self, name: str, text: str = "") -> None:
        """Press a key."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        told = {"key": name, "windowsVirtualKeyCode": codes[name], **({"text": text} if text else {})}
        self.call("Input.dispatchKeyEvent", type="keyDown", **told)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=name, windowsVirtualKeyCode=codes[name])

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Write what is seen, or the whole page, as PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.call("Page.bringToFront")  # one behind another is not painted, and would be waited for
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def _hear(self, told: dict[str, Any]) -> None:
        match told.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(str(told["params"]["exceptionDetails"].get("exception", told["params"])))
            case "Log.entryAdded" if told["params"]["entry"]["level"] == "error":
                self.complaints.append(told["params"]["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requested.append(told["params"]["request"]["url"])


@contextlib.contextmanager
def browser(path: str) -> Iterator[Browser]:
    """A browser for as long as this is entered."""
    with tempfile.TemporaryDirectory(prefix="lab-browser-", ignore_cleanup_errors=True) as profile:
        command = [path, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
        command += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"]
        command += ["--hide-scrollbars", "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        # In a session of its own: what Debian starts is a script, whose end would not be the browser's.
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as child:
            try:
                yield Browser(child.pid, _port(Path(profile) / "DevToolsActivePort"))
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)


class Browser:
    """Its tabs share nothing but the machine."""

    def __init__(self, pid: int, port: int) -> None:
        self._pid = pid
        self._port = port

    def cpu_s(self) -> float:
        """What all its processes that live have taken so far."""
        taken = 0.0
        for one in psutil.Process(self._pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                taken += sum(one.cpu_times()[:2])
        return taken

    @contextlib.contextmanager
    def tab(self) -> Iterator[Tab]:
        """A new page."""
        with httpx.Client(trust_env=False) as client:
            told = client.put(f"http://127.0.0.1:{self._port}/json/new?about:blank").json()
            socket = websocket.create_connection(told["webSocketDebuggerUrl"], timeout=60, suppress_origin=True)
            try:
                yield Tab(socket)
            finally:
                socket.close()
                client.get(f"http://127.0.0.1:{self._port}/json/close/{told['id']}")


def _port(file: Path) -> int:
    until = time.monotonic() + _BEGIN_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int(file.read_text().splitlines()[0])
        time.sleep(0.05)
    raise AssertionError("the browser did not begin")

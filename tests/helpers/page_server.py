"""A real `lab serve`, on drivers in memory or on those of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httpx

_END_S = 60.0


@dataclass
class PageServer:
    """Its address ends in a slash; `origin` is what a request of the page's own names."""

    address: str
    process: subprocess.Popen[str]

    @property
    def origin(self) -> str:
        return "/".join(self.address.split("/")[:3])

    @property
    def port(self) -> int:
        return int(self.origin.rpartition(":")[2])

    def client(self) -> httpx.Client:
        """A client that asks as the page does."""
        headers = {"Origin": self.origin, "Sec-Fetch-Site": "same-origin"}
        return httpx.Client(base_url=self.address, headers=headers, trust_env=False, timeout=60)

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Its exit code, and what it said on standard error."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=_END_S)
        return self.process.returncode, said


@contextlib.contextmanager
def page_server(environment: Mapping[str, str], *arguments: str) -> Iterator[PageServer]:
    """The page, at a free port."""
    command = [sys.executable, "-m", "lab", "serve", "--port", "0", *arguments]
    with subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            address = process.stdout.readline().strip()
            assert address.startswith("http://"), process.stderr.read()
            yield PageServer(address, process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.communicate(timeout=_END_S)
                except subprocess.TimeoutExpired:
                    process.kill()

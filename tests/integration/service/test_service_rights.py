"""The service needs no rights: any user, no capabilities, no way to gain either."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_process import started

from lab.service.build import build_service

NONCE = "5eed0000000000000000000000000009"
STRIPPED = ("--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The service where every user can run it: pytest's own directories are one user's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        copy = Path(shutil.copy(build_service(tmp_path_factory.mktemp("cache")), Path(folder, "service")))
        copy.chmod(0o755)
        yield copy


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="another user needs root and setpriv")
@pytest.mark.parametrize("uid", [65_532, 12_345, 1_000_680_000])
def test_any_user_without_rights_can_run_the_service(program: Path, uid: int) -> None:
    command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", *STRIPPED, program]
    with started(*command, nonce=NONCE, LAB_HOST="127.0.0.1") as (process, port):
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert f"Uid:\t{uid}\t{uid}" in status and "CapBnd:\t0000000000000000" in status
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/clock", headers={"X-Lab-Nonce": NONCE})
        answer = connection.getresponse()
        assert answer.status == 200 and NONCE.encode() in answer.read()
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0

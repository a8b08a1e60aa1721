"""Credential programs of a kubeconfig, as real programs that are missing, fail, babble, hang or ask."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from drivers.kubernetes.connection import credentials
from drivers.kubernetes.connection.client import Api, connect
from drivers.kubernetes.connection.credentials import Credentials
from drivers.kubernetes.connection.errors import translated
from drivers.kubernetes.connection.telling import telling
from lab.errors import BadInput, DriverUnavailable, LabError

VERSION = "client.authentication.k8s.io/v1"
GOOD = json.dumps({"apiVersion": VERSION, "kind": "ExecCredential", "status": {"token": "s3cret"}})
Connect = Callable[..., Api]


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """Makes the program `tmp_path/credential` of a shell's text."""

    def make(text: str) -> Path:
        path = tmp_path / "credential"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def reach(stub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Connects to the stub as the user whose `exec` is given."""
    made: list[Api] = []

    def one(command: object = "./credential", context: str = "work", **more: Any) -> Api:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "work",
            "contexts": [
                {"name": "work", "context": {"cluster": "c", "user": "u", "namespace": "team-a"}},
                {"name": "play", "context": {"cluster": "c"}},
            ],
            "clusters": [{"name": "c", "cluster": {"server": stub.url}}],
            "users": [{"name": "u", "user": {"exec": {"apiVersion": VERSION, "command": str(command), **more}}}],
        }
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'not-there'}:{path}")
        made.append(connect(context=context))
        return made[-1]

    yield one
    for api in made:
        api.close()


def version(api: Api) -> Any:
    with translated("tell its version"):
        return api.call(api.version.get_code)


def refusal(reach: Connect, **more: Any) -> LabError:
    with pytest.raises(LabError) as raised:
        version(reach(**more))
    assert "\n" not in raised.value.brief and raised.value.resolution
    return raised.value


def test_a_program_that_works_is_asked_once_and_its_token_is_sent(
    reach: Connect, program: Callable[[str], Path], stub: Any, tmp_path: Path
) -> None:
    program(
        f'echo x >> {tmp_path}/asked; echo "$KUBERNETES_EXEC_INFO" > {tmp_path}/info; echo \'{GOOD}\'; test "$A" = b'
    )
    api = reach(env=[{"name": "A", "value": "b"}], provideClusterInfo=True)
    version(api)
    version(api)
    assert stub.headers[-1]["authorization"] == "Bearer s3cret"
    assert (tmp_path / "asked").read_text() == "x\n"
    info = json.loads((tmp_path / "info").read_text())
    assert info["kind"] == "ExecCredential" and info["spec"]["interactive"] is False
    assert info["spec"]["cluster"] == {"server": stub.url}
    assert api.namespace == "team-a"


def test_a_token_that_ends_is_renewed_before_it_does(
    reach: Connect, program: Callable[[str], Path], stub: Any, tmp_path: Path
) -> None:
    soon, later = (
        (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ") for seconds in (0, 7200)
    )
    for number, end in (("1", soon), ("2", later)):
        status = {"token": f"token-{number}", "expirationTimestamp": end}
        told = {"apiVersion": VERSION, "kind": "ExecCredential", "status": status}
        (tmp_path / f"answer{number}").write_text(json.dumps(told))
    program(f"cd {tmp_path}; if test -e once; then cat answer2; else touch once; cat answer1; fi")
    api = reach()
    version(api)
    version(api)
    assert stub.headers[-1]["authorization"] == "Bearer token-2"


def test_a_token_of_a_short_life_is_not_asked_for_before_each_request_and_what_that_took_is_told(
    reach: Connect, program: Callable[[str], Path], tmp_path: Path
) -> None:
    end = (datetime.now(UTC) + timedelta(seconds=50)).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = {"apiVersion": VERSION, "kind": "ExecCredential", "status": {"token": "t", "expirationTimestamp": end}}
    (tmp_path / "answer").write_text(json.dumps(told))
    program(f"cd {tmp_path}; echo x >> asked; sleep 0.05; cat answer")
    with telling() as waits:
        api = reach()
        for _ in range(3):
            version(api)
    assert (tmp_path / "asked").read_text() == "x\n"
    assert (waits.runs, waits.ran_s >= 0.05, waits.again) == (1, True, {})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("echo 'ERROR: you are not logged in' >&2; exit 3", "failed with exit status 3: ERROR: you are not logged in"),
        ("echo hello", "printed no ExecCredential: hello"),
        ("exit 0", "printed no ExecCredential"),
        ("echo '[]'", "printed no ExecCredential"),
        (f"echo '{GOOD.replace('ExecCredential', 'Pod')}'", "printed no ExecCredential"),
        (f"echo '{GOOD.replace('s3cret', '')}'", "gave neither a token nor a certificate"),
        (f"echo '{GOOD.replace('/v1', '/v1beta1')}'", "speaks client.authentication.k8s.io/v1beta1, where"),
        ("read answer || { echo 'Password: no terminal' >&2; exit 1; }", "exit status 1: Password: no terminal"),
        ("read answer < /dev/tty || exit 1", "failed with exit status 1"),
        ("kill -9 $$", "failed with exit status 137"),
        ("printf 'a\\033[31mb\\n\\nlast' >&2; exit 1", "exit status 1: a?[31mb; last"),
    ],
)
def test_a_program_that_fails_is_named_with_its_own_words(
    reach: Connect, program: Callable[[str], Path], stub: Any, text: str, told: str, capfd: Any, caplog: Any
) -> None:
    program(text)
    found = refusal(reach)
    assert isinstance(found, DriverUnavailable)
    assert found.brief.startswith("the kubeconfig's credential program `./credential` ") and told in found.brief
    assert "anonymous" not in found.brief and not stub.requests, "the cluster is not asked as nobody"
    captured = capfd.readouterr()
    assert "ERROR:root" not in captured.err + captured.out and not caplog.records


@pytest.mark.parametrize(
    ("given", "told", "remedy"),
    [
        ({"command": "no-such-program"}, "`no-such-program` is not installed", "install it, or"),
        ({"command": "./no-such"}, "`./no-such` is not installed", "install it, or"),
        ({"command": "no-such", "installHint": "get it\n at https://x"}, "not installed", "get it at https://x"),
        ({"interactiveMode": "Always"}, "asks on a terminal each time", "run it by hand"),
        ({"env": [{"name": "A"}]}, "`exec` lacks 'value'", "kubectl config view"),
    ],
)
def test_a_program_that_cannot_be_run_is_named(
    reach: Connect, program: Callable[[str], Path], given: dict[str, Any], told: str, remedy: str
) -> None:
    program(f"echo '{GOOD}'")
    found = refusal(reach, **given)
    assert told in found.brief and remedy in found.resolution


def test_a_file_that_is_no_program_is_named(reach: Connect, tmp_path: Path) -> None:
    (tmp_path / "credential").write_text("no program")
    assert "exit status 126: Permission denied" in refusal(reach).brief


def test_a_program_that_hangs_is_ended_with_all_that_it_started(
    reach: Connect, program: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "LIMIT_S", 0.5)
    program(f"echo 'open https://login.example' >&2; sleep 60 & echo $! > {tmp_path}/pid; wait")
    started = time.monotonic()
    found = refusal(reach)
    assert time.monotonic() - started < 10
    assert "gave no answer within 0.5 s, and was ended: open https://login.example" in found.brief
    _until_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_program_ends_with_the_lab_however_that_ends(
    reach: Connect, program: Callable[[str], Path], tmp_path: Path, number: signal.Signals
) -> None:
    program(f"sleep 60 & echo $! > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; wait")
    with pytest.raises(BadInput):
        reach(context="no-such")  # writes the kubeconfig
    code = "from drivers.kubernetes.connection.client import connect; connect(context='work')"
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig")}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL) as lab:
        deadline = time.monotonic() + 30
        while not (tmp_path / "pid").exists():
            assert time.monotonic() < deadline and lab.poll() is None
            time.sleep(0.01)
        lab.send_signal(number)
        lab.wait(10)
    _until_gone(int((tmp_path / "pid").read_text()))


def test_a_context_that_is_not_there_is_bad_input_and_names_those_that_are(reach: Connect) -> None:
    with pytest.raises(BadInput, match="has no context 'no-such'") as raised:
        reach(context="no-such")
    assert raised.value.resolution == "it has: work, play"


def test_a_user_without_credentials_is_told_so(reach: Connect, stub: Any) -> None:
    stub.refuse("GET", "/version", 403, 'nodes is forbidden: User "system:anonymous" cannot list resource "nodes"')
    found = refusal(reach, context="play")
    assert "gives no credentials" in found.brief and "kubectl config view" in found.resolution


def test_a_certificate_becomes_the_users() -> None:
    given = Credentials(certificate="PEM", key="KEY").of_user()
    assert base64.b64decode(given["client-certificate-data"]) == b"PEM"
    assert base64.b64decode(given["client-key-data"]) == b"KEY" and "token" not in given


def _until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return
        if stat.rpartition(")")[2].split()[0] == "Z":
            return
        assert time.monotonic() < deadline, f"process {pid} was left behind"
        time.sleep(0.02)

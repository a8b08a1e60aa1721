"""The service is the one that the spec describes: its nonce, environment, command, log and restart."""

from __future__ import annotations

import json
import signal
import time

from contract_rig import VERSION, Rig, get, not_promised, who_answers

from lab.errors import LabError, Unsupported
from lab.features import Feature, OnThisHost, Role
from lab.host.procs import Process
from lab.launch.census import addresses_of
from lab.launch.output import KEPT_BYTES
from lab.service.serving import main_process
from lab.spec import Restart

REQUESTS = 700
"""Of a client that is launched instead of the service: each is a line of over 100 bytes, in all more than 64 KiB."""
_CLIENT = ("watch", "--host", "127.0.0.1", "--port", "1", "--interval-ms", "1", "--seconds", str(REQUESTS / 1000))


def test_it_answers_to_the_nonce_of_its_launch_alone(rig: Rig) -> None:
    rig.needs(Feature.NETWORK)
    session = rig.served.session
    assert session.answer is not None
    told = session.answer.clock()
    assert told is not None and told["nonce"] == session.spec.nonce
    assert b" 403 " in get(session, "/clock", nonce="0" * 32).split(b"\r\n")[0]
    assert b" 200 " in get(session, "/clock", nonce=session.spec.nonce).split(b"\r\n")[0]


def test_the_environment_of_the_spec_is_the_services(rig: Rig) -> None:
    if rig.has(Feature.NETWORK):
        head = get(rig.served.session, "/healthz").split(b"\r\n\r\n")[0].lower()
        assert f"x-lab-version: {VERSION}".encode() in head
    else:
        assert rig.served.facts["version"] == VERSION


def test_the_command_of_the_spec_replaces_the_images_and_its_log_is_the_last_64_kib(rig: Rig) -> None:
    log = _log_of_client(rig)
    told = [json.loads(line) for line in log.replace(b"\r", b"").splitlines() if line.startswith(b'{"summary"')]
    assert [one["summary"]["planned"] for one in told[:1]] == [REQUESTS], "the command that was given did not run"
    assert KEPT_BYTES - 16_384 < len(log) <= KEPT_BYTES


def test_its_log_has_what_it_wrote_so_far(rig: Rig) -> None:
    rig.needs(Feature.MARKER)
    nonce = rig.served.session.spec.nonce.encode()
    log = rig.log_with(rig.served.instance, b"listening")
    assert b"lab " + nonce + b" main " in log and b"lab " + nonce + b" listening " in log


def test_with_the_best_restart_it_is_back_after_it_was_killed(rig: Rig) -> None:
    rig.needs(Feature.RESTART, Feature.HOST_PIDS, Feature.NETWORK)
    with rig.session(restart=Restart.BEST) as session:
        session.launch()
        instance = session.instance
        assert instance is not None and isinstance(instance, OnThisHost)
        first = who_answers(session, instance.endpoint)
        main: Process = main_process(session, rig.clock)
        assert instance.host_pids()[main.pid] in (Role.SERVICE, Role.VMM)
        main.send(signal.SIGKILL)
        deadline = time.monotonic() + min(60.0, rig.timeout_s)
        while time.monotonic() < deadline:
            if any(who_answers(session, one) not in (None, first) for one in addresses_of(instance)):
                return
            time.sleep(0.05)
        raise AssertionError("it was not started again")


def _log_of_client(rig: Rig) -> bytes:
    """What an instance wrote whose command is not to serve; an engine that waits for it to serve may give it up, and
    tells then what it wrote."""
    with rig.session(command=_CLIENT) as session:
        try:
            session.ask()
        except Unsupported as error:
            not_promised(error.brief)
        except LabError as error:
            return error.details.encode()[-KEPT_BYTES:]
        assert session.instance is not None
        return rig.log_with(session.instance, b'{"summary"', 60)

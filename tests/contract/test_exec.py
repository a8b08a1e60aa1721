"""`exec` runs just what was asked inside the instance, and gives back what that program gave."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from contract_rig import VERSION, Rig, one_line

from lab.errors import DriverError
from lab.features import ExecResult, Execs, Feature

_ENDLESS = ("/service", "watch", "--host", "127.0.0.1", "--port", "1", "--seconds", "40")


def test_exec_runs_what_was_asked_in_the_services_own_surroundings(rig: Rig) -> None:
    done = _exec(rig, "/service", "ask", "GET", "/facts")
    assert done.exit_code == 0 and done.stderr == b""
    assert _told(done).get("version") == VERSION, "its environment, address and nonce are the service's"
    assert _exec(rig, "/service", "nothing") == ExecResult(0, b"", b"")


def test_exec_gives_the_programs_exit_code(rig: Rig) -> None:
    assert _exec(rig, "/service", "ask", "GET", "/no-such-endpoint").exit_code == 4


def test_exec_keeps_output_and_errors_apart(rig: Rig) -> None:
    done = _exec(rig, "/service", "ask", "GET", "/no-such-endpoint")
    assert _told(done) == {"error": "no such endpoint"}
    assert done.stderr == b"service: status: 404\n"


def test_exec_passes_each_word_on_as_it_is(rig: Rig) -> None:
    # Split at the space it would be a path and a limit in seconds, which is fine; and so it is not.
    assert _exec(rig, "/service", "ask", "GET", "/healthz 5").exit_code == 2
    assert _exec(rig, "/service", "ask", "GET", "/healthz;/service").exit_code == 4
    assert _exec(rig, "/service", "ask", "GET", "/healthz", "5").exit_code == 0


def test_exec_of_what_cannot_be_run_is_an_error_on_one_line(rig: Rig) -> None:
    with pytest.raises(DriverError) as raised:
        _exec(rig, "/no-such-program")
    assert one_line(raised.value) and "/no-such-program" in raised.value.brief


def test_exec_of_what_does_not_end_in_time_is_an_error_soon_after(rig: Rig) -> None:
    instance = _way_in(rig)
    begun = time.monotonic()
    with pytest.raises(DriverError) as raised:
        instance.exec(_ENDLESS, timeout_s=1)
    assert one_line(raised.value)
    assert time.monotonic() - begun < 35, "before it would have ended by itself"


def _told(done: ExecResult) -> dict[str, Any]:
    """Its output as JSON; empty where it is none."""
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        return {}


def _exec(rig: Rig, *argv: str) -> ExecResult:
    return _way_in(rig).exec(argv, timeout_s=60)


def _way_in(rig: Rig) -> Execs:
    rig.needs(Feature.EXEC)
    instance = rig.served.instance
    assert isinstance(instance, Execs)
    return instance

"""The pieces of `make accept` that need no engine: verdicts, requests by hand, and QEMU's arguments made one's own."""

from __future__ import annotations

import importlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from raw_server import serving

from lab.driver import Context
from lab.launch.session import Session
from lab.spec import Spec, new_nonce
from lab.testing import FakeDriver
from lab.timeline import SystemClock

FOLDER = Path(__file__).parents[2] / "accept"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Imports a file of tests/accept as its scripts do."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(FOLDER) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.95, 1.05, "met"),
        (0.85, 0.95, "inconclusive"),
        (1.05, 1.2, "inconclusive"),
        (0.5, 2.0, "inconclusive"),
        (1.11, 1.2, "missed"),
        (0.5, 0.89, "missed"),
        (None, None, "inconclusive"),
    ],
)
def test_a_verdict_is_given_only_where_the_whole_interval_agrees(
    load: object, low: float | None, high: float | None, expected: str
) -> None:
    verdict = _module(load, "verdict")
    assert verdict.SAME.judge(low, high) == expected


def test_a_line_names_n_interval_and_verdict(load: object, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = _module(load, "verdict")
    assert verdict.report("x", [0.2 + i / 100 for i in range(30)], "ms", verdict.UNDER_1_MS) == "met"
    text = capsys.readouterr().out
    assert "n = 30" in text and "95 % interval" in text and "goal under 1 ms -> met" in text
    assert verdict.report("x", [], "ms", verdict.UNDER_1_MS) == "not run"


def test_too_few_values_give_no_verdict(load: object) -> None:
    verdict = _module(load, "verdict")
    assert verdict.report("x", [0.1, 0.2], "ms", verdict.UNDER_1_MS) == "inconclusive"


def test_qemus_arguments_are_taken_over_but_for_what_is_libvirts_own(load: object, tmp_path: Path) -> None:
    pairs = _module(load, "qemu_pairs")
    argv = [
        "/usr/bin/qemu-system-x86_64", "-name", "guest=lab-q35-1,debug-threads=on", "-S",
        "-object", '{"qom-type":"secret","id":"masterKey0","file":"/x/master-key.aes"}',
        "-object", '{"qom-type":"memory-backend-ram","id":"pc.ram","size":134217728}',
        "-uuid", "30a8469d", "-chardev", "socket,id=charmonitor,fd=30,server=on,wait=off",
        "-mon", "chardev=charmonitor,id=monitor,mode=control", "-append", "console=ttyS0 lab.nonce=old",
        "-chardev", "pipe,id=charserial0,path=/x/console",
        "-netdev", "user,id=lab0,restrict=on,hostfwd=tcp:127.0.0.1:21241-:8080",
    ]  # fmt: skip
    found = pairs.adapted(
        argv, port=20000, nonces=("old", "new"), monitor=tmp_path / "monitor", console=tmp_path / "console"
    )
    assert found == [
        "/usr/bin/qemu-system-x86_64", "-S",
        "-object", '{"qom-type":"memory-backend-ram","id":"pc.ram","size":134217728}',
        "-chardev", f"socket,id=charmonitor,path={tmp_path}/monitor,server=on,wait=off",
        "-mon", "chardev=charmonitor,id=monitor,mode=control", "-append", "console=ttyS0 lab.nonce=new",
        "-chardev", f"pipe,id=charserial0,path={tmp_path}/console",
        "-netdev", "user,id=lab0,restrict=on,hostfwd=tcp:127.0.0.1:20000-:8080",
    ]  # fmt: skip


def test_requests_by_hand_end_with_the_answer_of_this_launch_only(load: object, tmp_path: Path) -> None:
    by_hand = _module(load, "requests_by_hand")
    driver = FakeDriver("", Context(run_dir=tmp_path, cache_dir=tmp_path))
    with Session(driver, driver.info(), Spec(labels={"lab.run": "r"}).for_launch(), SystemClock()) as session:
        session.launch()
        assert session.instance is not None and session.instance.endpoint is not None
        port, never = session.instance.endpoint.port, threading.Event()
        begun_ns = SystemClock().now_ns()
        ended_ns, tries = by_hand.first_answer(port, session.spec.nonce, timeout_s=10, failed=never)
        assert begun_ns < ended_ns and tries >= 1
        with pytest.raises(TimeoutError):
            by_hand.first_answer(port, new_nonce(), timeout_s=0.2, failed=never)


@pytest.mark.parametrize(
    "program", ["docker_by_hand.py", "qemu_by_hand.py", "requests_by_hand.py", "patient_by_hand.py"]
)
def test_the_separate_programs_share_no_code_with_the_lab(program: str) -> None:
    allowed = {*sys.stdlib_module_names, "requests_by_hand"}
    words = [line.split()[1] for line in (FOLDER / program).read_text().splitlines() if line[:5] in ("from ", "impor")]
    assert words and {word.split(".")[0] for word in words} <= allowed


@pytest.mark.parametrize(
    ("lab", "patient", "served", "verdict"),
    [
        ([100, 101, 102], [99, 100, 103], 0, "met"),  # as fast, by 5 ms or 2 %
        ([120, 121, 122], [100, 101, 102], 0, "missed"),  # later, each time
        ([100, 140, 180], [105, 120, 150], 1, "met"),  # busy: what is over is the service's own time
        ([100, 140, 180], [105, 120, 150], 0, "inconclusive"),
        ([140, 141, 142], [100, 101, 102], 1, "inconclusive"),  # three launches do not tell whose fault that is
        ([140, 141, 142, 143, 144, 145], [100, 101, 102, 103, 104, 105], 1, "missed"),
    ],
)
def test_readiness_is_missed_only_where_that_is_the_waiting(
    load: object, lab: list[float], patient: list[float], served: int, verdict: str
) -> None:
    readiness = _module(load, "readiness")

    def seen(values: list[float]) -> list[object]:
        return [readiness.Seen(whole_ms=one, waited_ms=one, served_ms=(one - 5) * served, cpu_ms=0) for one in values]

    both = {True: seen(lab), False: seen(patient)}
    difference = sorted(lab)[len(lab) // 2] - sorted(patient)[len(patient) // 2]
    assert readiness._verdict(both, difference, difference * (1 - served), 5.0) == verdict


def test_one_patient_client_waits_for_its_answer_and_tries_again_what_was_not_taken(load: object) -> None:
    readiness = _module(load, "readiness")
    taken: list[float] = []

    def handle(connection: socket.socket) -> None:
        connection.recv(4096)
        taken.append(time.monotonic())
        if len(taken) > 1:
            time.sleep(0.4)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")

    with serving(handle) as endpoint:
        patient = readiness.Patient(Spec(), SystemClock())
        try:
            patient.start(endpoint)
            patient.attempt()
            answer = patient.wait(20)
        finally:
            patient.cancel()
    assert len(taken) == 2 and 0.4 <= answer.received_ns / 1e9 - taken[1] < 1


def _module(load: object, name: str) -> ModuleType:
    assert callable(load)
    found = load(name)
    assert isinstance(found, ModuleType)
    return found


WRK_PRINTED = """Running 2s test @ http://127.0.0.1:8080/healthz
  1 threads and 1 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    61.32us   20.11us 512.00us   88.11%
  Latency Distribution
     50%   52.00us
     75%   61.00us
     90%   80.00us
     99%    1.52ms
  365 requests in 2.00s, 60.03KB read
"""
SOCKPERF_PRINTED = """sockperf: ====> avg-latency=21.377 (std-dev=5.166)
sockperf: Summary: Latency is 21.377 usec
sockperf: ---> percentile 99.000 =   40.120
sockperf: ---> percentile 50.000 =   20.500
"""


@pytest.mark.parametrize(
    ("name", "printed", "figure_s", "factor"),
    [
        # The whole round trip; of its percentiles the median alone, since the others hold samples that it made up.
        ("WRK", WRK_PRINTED, 52e-6, 1.0),
        ("WRK", WRK_PRINTED.replace("52.00us", "1.25ms"), 1.25e-3, 1.0),
        # Half the round trip, which --full-rtt would make whole.
        ("SOCKPERF", SOCKPERF_PRINTED, 20.5e-6, 2.0),
    ],
)
def test_of_each_tool_one_figure_is_compared_by_its_factor(
    load: Callable[[str], Any], name: str, printed: str, figure_s: float, factor: float
) -> None:
    tools = load("outside_tools")
    tool = getattr(tools, name)
    assert tool.factor == factor
    assert tool.seconds(printed) == pytest.approx(figure_s * factor)
    assert {one.name for one in tools.TOOLS} == {"wrk", "sockperf"}  # each has its row above


def test_a_tool_that_prints_something_else_is_no_figure(load: Callable[[str], Any]) -> None:
    tools = load("outside_tools")
    with pytest.raises(load("programs").ProgramFailed, match="did not print"):
        tools.WRK.seconds("Socket errors: connect 1\n")

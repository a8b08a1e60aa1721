"""The host's kernel while real engines launch and serve: exact calls, more for a launch, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.driver import Context, Driver
from lab.errors import Unsupported
from lab.figures.series import absences
from lab.host.tracing.instance import require_tracing, trace_instances, tracefs
from lab.host.tracing.traces import unpack
from lab.registry import make_driver
from lab.service.build import build_service
from lab.spec import Target
from lab.store.record import Outcome, RunRecord
from scenarios.hostkernel import Hostkernel

pytestmark = pytest.mark.alone  # the kernel's traces are one for all

Measure = Callable[..., RunRecord]
NONCE = "5eed0000000000000000000000000007"
ACTS = ("launch", "request", "mix")
WINDOWS_S = (0.3, 1.0, 2.0)
"""One after the other, where the machine was too busy with others' work for the one before."""
OTHERS = ("took longer than its window", "trace lost events", "the engine was not idle")


@pytest.fixture
def traceable() -> None:
    try:
        require_tracing()
    except Unsupported as error:
        pytest.skip(str(error))


@pytest.fixture
def driver(target: str, make_context: Callable[..., Context]) -> Iterator[Driver]:
    made = make_driver(Target.parse(target), make_context())
    yield made
    made.close()


def values(record: RunRecord, metric: str) -> dict[str, float]:
    return {s.dimensions["act"]: s.value for s in record.samples if s.metric == metric}


def facts(record: RunRecord) -> dict[str, str]:
    return {s.dimensions["probe"]: s.dimensions["said"] for s in record.samples if s.metric == "fact"}


def untouched() -> tuple[str, ...]:
    """What of the host's own tracing somebody could have changed."""
    with tracefs() as root:
        names = ("current_tracer", "tracing_on", "trace_clock", "set_event", "set_event_pid", "events/enable")
        options = sorted((root / "options").iterdir())
        # Whoever first uses an event gives it the size in brackets, on kernels before 6.7 for all instances.
        size = re.sub(r"\d+ \(expanded: (\d+)\)", r"\1", (root / "buffer_size_kb").read_text())
        return (size, *((root / name).read_text() for name in names), *(path.read_text() for path in options))


def measured(measure: Measure, driver: Driver) -> RunRecord:
    """A run that others' work on this machine did not spoil."""
    for window in WINDOWS_S:
        record = measure(Hostkernel(window=window, buffer=512), driver)
        assert trace_instances({"lab.run": record.run.id}) == []
        if not any(said in launch.error for launch in record.launches for said in OTHERS):
            break
    assert [launch.error for launch in record.launches if launch.outcome is not Outcome.OK] == []
    return record


@pytest.mark.usefixtures("traceable")
@pytest.mark.beyond_engine
@pytest.mark.parametrize(
    "target", [pytest.param(one, marks=pytest.mark.engine(one)) for one in ("process", "docker", "docker:none")]
)
def test_acts_are_told_apart_and_the_mix_is_seen_whole(target: str, driver: Driver, measure: Measure) -> None:
    before = untouched()
    record = measured(measure, driver)
    assert untouched() == before
    functions, calls = values(record, "functions"), values(record, "syscalls_calls")
    (launch,) = record.launches
    kept = launch.facts["hostkernel"]
    if target == "docker:none":
        assert set(functions) == {"launch"}
        assert "without a network" in absences(record)[driver.name, "functions"]
        return
    assert set(functions) == set(ACTS)
    assert functions["launch"] > functions["request"] > 10
    made = kept["mix_made"]
    idle_calls = values(record, "idle_syscalls_calls")["mix"]
    assert sum(made.values()) <= calls["mix"] <= sum(made.values()) + 500 + 2 * idle_calls
    assert "each of the 460 seen" in facts(record)["system calls of the mix"]
    assert "service" in facts(record)["programs run by launch"]
    for act in ACTS:
        seen, idle = (unpack(kept[act][name]) for name in ("functions", "idle_functions"))
        assert len(seen - idle) == functions[act]
        assert sum(kept[act]["calls"].values()) == calls[act]
    if kept["method"] == "stacks":
        assert {"do_sys_openat2", "do_filp_open"} & unpack(kept["launch"]["functions"])


@pytest.mark.engine("process")
@pytest.mark.beyond_engine
def test_strace_counts_the_same_mix(tmp_path: Path, make_context: Callable[..., Context]) -> None:
    """The calls that the service claims, against another program's count of them."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not here: apt-get install strace")
    binary = build_service(make_context().cache_dir)
    counts = tmp_path / "counts"
    port = str(_free_port())
    environment = {"LAB_PORT": port, "LAB_NONCE": NONCE}
    strace = ["strace", "-f", "-c", "-S", "calls", "-U", "calls,name", "-o", str(counts), str(binary)]
    process = subprocess.Popen(strace, env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert [process.stdout.readline().split()[2] for _ in range(2)] == [b"main", b"listening"]
        (traced,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        answer = subprocess.run(
            [sys.executable, "-c", POST, port, NONCE], capture_output=True, timeout=60, check=True, text=True
        )
        os.kill(int(traced), signal.SIGTERM)  # strace writes its summary once what it traces has ended
        process.wait(60)
    finally:
        process.kill()
        process.stdout.close()
    seen = {name: int(count) for count, name in re.findall(r"^\s*(\d+)\s+(\w+)\s*$", counts.read_text(), re.MULTILINE)}
    made = json.loads(answer.stdout)["calls"]
    assert {one["name"]: one["count"] for one in made} == {one["name"]: seen.get(one["name"]) for one in made}
    assert [one for one in made if one["failed"]] == []


@pytest.mark.usefixtures("traceable")
@pytest.mark.engine("process")
@pytest.mark.beyond_engine
def test_a_killed_lab_leaves_an_instance_that_clean_removes(tmp_path: Path) -> None:
    before = untouched()
    store = tmp_path / "killed.db"
    arguments = ["run", "hostkernel", "-t", "process", "--rounds", "9", "--warmup", "0", "--store", str(store)]
    # As `lab` does it; but it says when it traces, and then waits to be killed.
    lab = subprocess.Popen(
        [sys.executable, "-c", HELD, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert lab.stdout is not None
    try:
        run = next(line.split()[1] for line in lab.stdout if line.startswith("tracing "))
    finally:
        lab.kill()
        lab.wait(60)
        lab.stdout.close()
    (left,) = trace_instances({"lab.run": run})
    with tracefs() as root:
        assert (root / "instances" / left.id / "tracing_on").read_text() == "1\n"
    clean = subprocess.run(
        [sys.executable, "-m", "lab", "clean", "--yes", "--json"], capture_output=True, timeout=200, check=False
    )
    assert clean.returncode == 0, clean.stderr
    assert trace_instances({"lab.run": run}) == []
    assert untouched() == before


POST = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
connection.request("POST", "/mix", headers={"X-Lab-Nonce": sys.argv[2], "Connection": "close"})
print(connection.getresponse().read().decode())
"""

HELD = """
import contextlib, sys, time
import lab.cli.main, lab.host.tracing.instance
on = lab.host.tracing.instance.Tracing.on
@contextlib.contextmanager
def held(self):
    with on(self):
        print("tracing", lab.host.tracing.instance.labels_of(self.path.name)["lab.run"], flush=True)
        time.sleep(60)
        yield
lab.host.tracing.instance.Tracing.on = held
lab.cli.main.main()
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

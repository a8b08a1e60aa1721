"""The control on the real kernel: its cgroup, its limits, and how it is found again once its lab was killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from drivers.process import ProcessDriver, ProcessInstance
from lab.driver import Context, Mark
from lab.errors import LaunchError, Unsupported
from lab.features import SleepState
from lab.host import cgroup
from lab.host.procs import Process
from lab.launch.session import Session
from lab.launch.waiter import reserve_port
from lab.spec import Endpoint, Spec
from lab.timeline import Phase, Source, SystemClock
from lab.units import MIB

pytestmark = pytest.mark.engine("process")


@pytest.fixture
def driver(make_context: Callable[..., Context], labels: dict[str, str]) -> Iterator[ProcessDriver]:
    made = ProcessDriver("", make_context())
    yield made
    for instance in made.list_instances({"lab.run": labels["lab.run"]}):
        instance.delete()
    for leftover in made.leftovers({"lab.run": labels["lab.run"]}):
        leftover.delete()
    made.close()


def _session(driver: ProcessDriver, labels: Mapping[str, str], **changes: object) -> Session:
    spec = Spec(labels={**labels, "lab.target": "process"}, **changes)  # type: ignore[arg-type]
    driver.prepare(spec)
    return Session(driver, driver.info(), spec.for_launch(), SystemClock(), timeout_s=60)


def test_a_launch_marks_what_the_kernel_and_the_service_show(driver: ProcessDriver, labels: dict[str, str]) -> None:
    with _session(driver, labels) as session:
        session.launch()
        seen = {(mark.phase, mark.source) for mark in session.timeline}
        assert {(Phase.STARTED, Source.RETURN), (Phase.MAIN, Source.LOG), (Phase.LISTENING, Source.LOG)} <= seen
        assert Phase.CREATED not in session.timeline
        for start, end in [(Phase.REQUESTED, Phase.STARTED), (Phase.REQUESTED, Phase.MAIN), (Phase.MAIN, Phase.READY)]:
            assert session.timeline.duration_s(start, end) >= 0


def test_the_kernel_holds_the_limits_of_the_spec(driver: ProcessDriver, labels: dict[str, str]) -> None:
    limits = driver.info().facts["limits"]
    with _session(driver, labels, cpus=0.5, memory_bytes=64 * MIB, pids=17) as session:
        session.launch()
        (pid,) = session.instance.host_pids()  # type: ignore[union-attr]
        held = cgroup.of_process(pid).limits()
        wanted = {"memory": 64 * MIB, "swap": 0, "cpus": 0.5, "pids": 17}
        have = {"memory": held.memory_bytes, "swap": held.swap_bytes, "cpus": held.cpus, "pids": held.pids}
        for limit, how in limits.items():
            if how.startswith("cgroup"):
                assert have[limit] == wanted[limit], limit


def test_the_environment_is_only_what_the_service_is_given(driver: ProcessDriver, labels: dict[str, str]) -> None:
    with _session(driver, labels, environment={"OWN": "1"}) as session:
        session.launch()
        (pid,) = session.instance.host_pids()  # type: ignore[union-attr]
        text = Path(f"/proc/{pid}/environ").read_text()
        given = dict(entry.partition("=")[::2] for entry in text.rstrip("\0").split("\0"))
        assert set(given) == {"OWN", "LAB_HOST", "LAB_PORT", "LAB_NONCE", "LAB_LABELS"}
        assert json.loads(given["LAB_LABELS"]) == dict(session.spec.labels)
        assert given["LAB_HOST"] == "127.0.0.1"


def test_it_ends_by_sigterm_and_leaves_no_cgroup(driver: ProcessDriver, labels: dict[str, str]) -> None:
    with _session(driver, labels) as session:
        session.launch()
        (pid,) = session.instance.host_pids()  # type: ignore[union-attr]
        session.stop()
        assert Process.of(pid) is None
        session.instance.stop(timeout_s=1)  # type: ignore[union-attr]
        session.delete()
        session.instance.delete()  # type: ignore[union-attr]
    assert not [one for one in cgroup.groups(cgroup.places()) if one.labels["lab.run"] == labels["lab.run"]]


def test_a_service_that_ignores_sigterm_is_killed_with_its_children(
    driver: ProcessDriver, labels: dict[str, str]
) -> None:
    with _session(driver, labels) as session:
        session.launch()
        (pid,) = session.instance.host_pids()  # type: ignore[union-attr]
        os.kill(pid, signal.SIGSTOP)  # so that SIGTERM waits
        started = time.monotonic()
        session.instance.stop(timeout_s=0.2)  # type: ignore[union-attr]
        assert time.monotonic() - started >= 0.2
        assert Process.of(pid) is None


def test_one_that_the_lab_put_to_sleep_hears_its_stop_signal(driver: ProcessDriver, labels: dict[str, str]) -> None:
    with _session(driver, labels) as session:
        session.launch()
        instance = session.instance
        assert isinstance(instance, ProcessInstance)
        instance.sleep(SleepState.PAUSED, timeout_s=10)
        instance.stop(timeout_s=30)
        assert not instance.was_killed()


def test_a_users_image_is_refused(driver: ProcessDriver, labels: dict[str, str]) -> None:
    with pytest.raises(Unsupported, match="root filesystem"):
        driver.prepare(Spec(image="nginx:alpine", labels=labels))


def test_after_its_lab_was_killed_a_fresh_driver_finds_and_removes_it(
    driver: ProcessDriver, labels: dict[str, str], tmp_path: Path
) -> None:
    driver.prepare(Spec(labels=labels))
    script = textwrap.dedent("""
        import json, sys, time
        from pathlib import Path
        from drivers.process import ProcessDriver, ProcessInstance
        from lab.driver import Context
        from lab.launch.session import Session
        from lab.spec import Spec
        from lab.timeline import SystemClock
        run_dir, cache_dir, labels = sys.argv[1:]
        driver = ProcessDriver("", Context(run_dir=Path(run_dir), cache_dir=Path(cache_dir)))
        spec = Spec(labels=json.loads(labels)).for_launch()
        driver.prepare(spec)
        session = Session(driver, driver.info(), spec, SystemClock())
        session.launch()
        print(json.dumps([session.instance.id, list(session.instance.host_pids()), str(session.instance.endpoint)]))
        sys.stdout.flush()
        time.sleep(120)
    """)
    context = driver._context
    lab = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), str(context.cache_dir), json.dumps(labels)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    try:
        assert lab.stdout is not None
        identity, pids, endpoint = json.loads(lab.stdout.readline())
    finally:
        lab.kill()
        lab.wait(10)
    assert all(Process.of(pid) for pid in pids), "it outlives its lab"
    (found,) = driver.list_instances({"lab.run": labels["lab.run"]})
    assert (found.id, str(found.endpoint)) == (identity, endpoint)
    assert set(found.host_pids()) == set(pids)  # type: ignore[attr-defined]
    assert found.labels["lab.owner"] == labels["lab.owner"]
    assert driver.leftovers({"lab.run": labels["lab.run"]}) == []
    found.delete()
    assert not any(Process.of(pid) for pid in pids)
    assert driver.list_instances({"lab.run": labels["lab.run"]}) == []
    assert driver.leftovers({"lab.run": labels["lab.run"]}) == []


def test_a_cgroup_whose_launch_died_before_the_process_is_a_leftover(
    driver: ProcessDriver, labels: dict[str, str]
) -> None:
    where = cgroup.places()
    if not where.directories:
        return  # this user's launches make no cgroups, so that none can be left
    wanted = {**labels, "lab.launch": "00ff", "lab.target": "process"}
    cgroup.make(where, wanted, cgroup.Limits(pids=4))
    (left,) = driver.leftovers({"lab.run": labels["lab.run"]})
    assert (left.kind, dict(left.labels)) == ("cgroup", wanted)
    left.delete()
    left.delete()
    assert driver.leftovers({"lab.run": labels["lab.run"]}) == []


def test_a_port_that_was_taken_meanwhile_is_told_by_the_service(
    driver: ProcessDriver, labels: dict[str, str], until: Callable[..., object]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        spec = Spec(labels=labels).for_launch()
        driver.prepare(spec)
        instance = driver.launch(spec, Endpoint("127.0.0.1", taken.getsockname()[1]), _Ignored())
        until(lambda: b"in use" in instance.logs().lower())
        instance.delete()


def test_a_service_that_dies_before_it_is_ready_fails_its_launch_at_once(
    driver: ProcessDriver, labels: dict[str, str]
) -> None:
    with _session(driver, labels) as session, socket.socket() as taken:
        reserve = session._reserve

        def reserve_and_take() -> Endpoint:
            endpoint = reserve()
            taken.bind((endpoint.host, endpoint.port))
            taken.listen()
            return endpoint

        session._reserve = reserve_and_take  # type: ignore[method-assign]
        with pytest.raises(LaunchError, match="the service ended with exit status 1"):
            session.launch()


def test_an_end_that_was_asked_for_is_no_failure(driver: ProcessDriver, labels: dict[str, str]) -> None:
    spec = Spec(labels=labels).for_launch()
    driver.prepare(spec)
    for end in ("stop", "delete"):
        mark = _Kept()
        instance = driver.launch(spec, Endpoint("127.0.0.1", reserve_port(None)), mark)
        if end == "stop":
            instance.stop(timeout_s=10)
        instance.delete()
        assert mark.failures == []


class _Kept:
    """A Mark that keeps what failed."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []

    def __call__(self, phase: Phase, *, source: Source) -> None: ...
    def line(self, text: bytes, *, source: Source) -> None: ...
    def moment(self) -> Mark:
        return self

    def failed(self, error: Exception) -> None:
        self.failures.append(error)


class _Ignored:
    """A Mark whose instants nobody asks for."""

    def __call__(self, phase: Phase, *, source: Source) -> None: ...

    def line(self, text: bytes, *, source: Source) -> None: ...
    def moment(self) -> Mark:
        return self

    def failed(self, error: Exception) -> None: ...

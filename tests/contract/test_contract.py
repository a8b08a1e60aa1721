"""What every driver promises, on the fake engine and on every real one that is registered.

A new driver is picked up by its entry point; nothing here names an engine.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lab.driver import Context, Driver, Info
from lab.errors import DriverUnavailable, LabError
from lab.features import EngineOnThisHost, Feature, OnThisHost, StoredHere
from lab.host.ownership import Owner
from lab.host.pinning import pinned_to
from lab.host.procs import Process, all_ended
from lab.launch.session import Session
from lab.launch.ticks import tick_s
from lab.registry import driver_class, driver_names
from lab.run.clean import find
from lab.run.runner import new_run_id
from lab.spec import Endpoint, Spec, Target
from lab.store.place import RunDir, cache_dir, make_run_dir
from lab.testing import FakeDriver, engine_of
from lab.timeline import HostClock, Phase, SystemClock

FAKE = Target("fake")


def _targets() -> list[object]:
    """Every variant once: not what an engine launches only when a flag asks for it, such as a privileged container, nor
    a default that is, in the driver's words, `the same as` another."""
    found: list[object] = [pytest.param(FAKE, id="fake")]
    for name in driver_names():
        driver = driver_class(name)
        variants = driver.variants()
        for variant, about in variants.items():
            _, alias, other = about.partition("the same as ")
            if variant in getattr(driver, "by_flag_only", ()) or (alias and other in variants):
                continue
            target = Target(name, variant)
            found.append(pytest.param(target, id=str(target), marks=pytest.mark.engine(str(target))))
    return found


@dataclass(slots=True)
class Rig:
    """One driver, prepared, and what is needed to make another like it."""

    target: Target
    context: Context
    driver: Driver
    info: Info
    spec: Spec
    clock: HostClock

    def fresh(self) -> Driver:
        return _make(self.target, self.context)

    def session(self, **changes: Any) -> Session:
        spec = replace(self.spec, **changes).for_launch()
        return Session(self.driver, self.info, spec, self.clock, timeout_s=120)


def _make(target: Target, context: Context) -> Driver:
    cls = FakeDriver if target.driver == FAKE.driver else driver_class(target.driver)
    return cls(target.variant, context)  # type: ignore[call-arg]


@pytest.fixture(scope="module", params=_targets())
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    target = request.param
    run_id = f"c{new_run_id()}"
    labels = {"lab.run": run_id, "lab.scenario": "contract", "lab.owner": str(Owner.current())}
    run_dir = RunDir(str(make_run_dir(run_id, labels)), labels)
    cache = tmp_path_factory.mktemp("fake") if target == FAKE else cache_dir()
    context = Context(run_dir=Path(run_dir.id), cache_dir=cache)
    driver = _make(target, context)
    try:
        spec = Spec(labels={**labels, "lab.target": str(target)})
        info = driver.info()
        driver.prepare(spec)
        clock = engine_of(context).clock if target == FAKE else SystemClock()
        yield Rig(target, context, driver, info, spec, clock)
    finally:
        for instance in driver.list_instances({"lab.run": run_id}):
            instance.delete()
        for leftover in driver.leftovers({"lab.run": run_id}):
            leftover.delete()
        driver.close()
        run_dir.delete()


def test_info_tells_what_the_engine_is(rig: Rig) -> None:
    info = rig.info
    assert info.engine and info.version and info.isolation
    assert json.loads(json.dumps({**info.facts, **info.qualifiers})) == {**info.facts, **info.qualifiers}
    assert rig.driver.name == rig.target.driver
    assert rig.target.variant in rig.driver.variants()
    assert (tick_s(info) > 0) is (Feature.TICKS in info.features)
    assert ("tick" in info.qualifiers.get("clock", "")) is (Feature.TICKS in info.features), "told in the row"


def test_prepare_is_idempotent(rig: Rig) -> None:
    before = {(left.kind, left.id) for left in rig.driver.leftovers({"lab.run": rig.spec.labels["lab.run"]})}
    rig.driver.prepare(rig.spec)
    after = {(left.kind, left.id) for left in rig.driver.leftovers({"lab.run": rig.spec.labels["lab.run"]})}
    assert after == before


def test_a_launch_goes_from_requested_to_ready_by_its_own_answer_and_is_gone_after_delete(rig: Rig) -> None:
    with rig.session() as session:
        session.launch()
        timeline = session.timeline
        assert Phase.REQUESTED in timeline
        assert (Phase.READY in timeline) == (Feature.NETWORK in rig.info.features)
        end = Phase.READY if Feature.NETWORK in rig.info.features else Phase.LISTENING
        assert timeline.duration_s(Phase.REQUESTED, end) > 0
        instance = session.instance
        if Feature.MARKER in rig.info.features:
            assert Phase.MAIN in timeline and Phase.LISTENING in timeline
            deadline = time.monotonic() + 30  # an engine may log what it has forwarded already
            while session.spec.nonce.encode() not in instance.logs() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert session.spec.nonce.encode() in instance.logs()
        if Feature.NETWORK in rig.info.features:
            _answers_to_its_nonce_alone(session)
        session.stop()
        session.delete()
    assert Phase.STOPPED in session.timeline and Phase.DELETED in session.timeline
    with contextlib.closing(rig.fresh()) as fresh:
        assert instance.id not in _ids(fresh, rig)
    instance.delete()
    instance.stop(timeout_s=1)
    if session.answer is not None:
        assert instance.endpoint is not None
        assert not _serves(instance.endpoint)


def _answers_to_its_nonce_alone(session: Session) -> None:
    assert session.answer is not None
    told = session.answer.clock()
    assert told is not None and told["nonce"] == session.spec.nonce
    answer = _get(session, "/clock", nonce="0" * 32)
    assert answer.startswith(b"HTTP/1.") and b" 403 " in answer.split(b"\r\n")[0]
    assert b" 200 " in _get(session, "/clock", nonce=session.spec.nonce).split(b"\r\n")[0]


def test_all_that_is_left_is_found_by_label_and_removed(rig: Rig) -> None:
    wanted = {"lab.run": rig.spec.labels["lab.run"]}
    fresh = rig.fresh()
    try:
        for leftover in fresh.leftovers(wanted):
            assert leftover.labels["lab.owner"] == rig.spec.labels["lab.owner"]
            leftover.delete()
            leftover.delete()
        assert list(fresh.leftovers(wanted)) == []
        looked = find([fresh], {"lab.run": "nobody's"})
        assert not looked.found and not looked.problems and not looked.absent
    finally:
        fresh.close()
        rig.driver.prepare(rig.spec)


def test_two_live_side_by_side_and_a_fresh_driver_finds_the_one_that_is_left_and_removes_it_unstopped(rig: Rig) -> None:
    with rig.session() as first, rig.session() as second, contextlib.closing(rig.fresh()) as fresh:
        first.launch()
        second.launch()
        assert first.instance.id != second.instance.id
        assert set(_ids(rig.driver, rig)) >= {first.instance.id, second.instance.id}
        first.delete()
        assert first.instance.id not in _ids(rig.driver, rig)
        assert isinstance(first.instance.logs(), bytes)
        wanted = {"lab.run": second.spec.labels["lab.run"], "lab.launch": second.spec.labels["lab.launch"]}
        found = fresh.list_instances(wanted)
        assert [instance.id for instance in found] == [second.instance.id]
        assert dict(found[0].labels) == dict(second.spec.labels)
        assert fresh.list_instances({"lab.run": "another"}) == []
        found[0].delete()
        assert list(fresh.list_instances(wanted)) == []


def test_host_pids_are_this_hosts_stay_on_their_cpus_end_with_the_instance_and_are_no_daemons(rig: Rig) -> None:
    if Feature.HOST_PIDS not in rig.info.features:
        return
    pinned = (max(os.sched_getaffinity(0)),) if Feature.PINNING in rig.info.features else ()
    with rig.session(cpuset=pinned) as session:
        session.launch()
        assert isinstance(session.instance, OnThisHost)
        pids = session.instance.host_pids()
        if pinned:
            assert pinned_to(session.instance) == set(pinned)
        processes = [process for pid in pids if (process := Process.of(pid))]
        assert pids and len(processes) == len(pids)
        if Feature.ENGINE_PIDS in rig.info.features:
            assert isinstance(rig.driver, EngineOnThisHost)
            daemons = rig.driver.engine_pids()
            assert all(Path(f"/proc/{pid}").exists() and name for pid, name in daemons.items())
            assert not set(pids) & set(daemons)
        if Feature.STORAGE in rig.info.features:
            assert isinstance(session.instance, StoredHere)
            stored = session.instance.storage()
            assert {"image", "kernel"} & set(stored), "what launches share"
            assert all(path.exists() for paths in stored.values() for path in paths)
        session.delete()
        assert not all_ended(processes, 30), "each has ended, though its parent may not have waited for it yet"


def test_a_port_in_use_is_one_clear_error_and_leaves_nothing(rig: Rig) -> None:
    if Feature.NETWORK not in rig.info.features:
        return
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        session = Session(rig.driver, rig.info, rig.spec.for_launch(), rig.clock, timeout_s=20, port=port)
        with session, pytest.raises(LabError) as raised:
            session.launch()
        assert str(port) in raised.value.brief and "\n" not in raised.value.brief
    with contextlib.closing(rig.fresh()) as fresh:
        left = fresh.list_instances({"lab.run": rig.spec.labels["lab.run"]})
        assert session.spec.labels["lab.launch"] not in {instance.labels["lab.launch"] for instance in left}


def test_what_a_driver_cannot_launch_it_refuses_by_a_driver_error(rig: Rig) -> None:
    impossible = replace(rig.spec, image="/nonexistent/image.tar", port=80)
    with pytest.raises(LabError) as raised:
        rig.driver.prepare(impossible)
    assert raised.value.brief and "\n" not in raised.value.brief


def test_an_unknown_variant_is_refused_by_name(rig: Rig) -> None:
    with pytest.raises(LabError) as raised:
        _make(Target(rig.target.driver, "no-such-variant"), rig.context).info()
    assert "no-such-variant" in str(raised.value)


def test_close_is_idempotent_and_a_closed_driver_can_be_replaced(rig: Rig) -> None:
    fresh = rig.fresh()
    with contextlib.suppress(DriverUnavailable):
        fresh.info()
    fresh.close()
    fresh.close()
    with contextlib.closing(rig.fresh()) as another:
        assert another.info().engine == rig.info.engine


def _ids(driver: Driver, rig: Rig) -> list[str]:
    return [instance.id for instance in driver.list_instances({"lab.run": rig.spec.labels["lab.run"]})]


def _serves(endpoint: Endpoint) -> bool:
    """Whether anything is answered there; a cluster's own forwarder may take a connection that it cannot pass on."""
    try:
        with socket.create_connection((endpoint.host, endpoint.port), 2) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return bool(connection.recv(1))
    except OSError:
        return False


def _get(session: Session, path: str, *, nonce: str) -> bytes:
    endpoint = session.instance.endpoint
    with socket.create_connection((endpoint.host, endpoint.port), 30) as connection:
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Lab-Nonce: {nonce}\r\n\r\n".encode()
        )
        answer = b""
        while part := connection.recv(4096):
            answer += part
    return answer

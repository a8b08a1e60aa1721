"""What `memory` and `density` find of processes whose memory is known, and of real engines' instances."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from lab.driver import Context, Driver, Instance, Mark
from lab.errors import Unsupported
from lab.features import EngineOnThisHost, Feature, HasGuestMemory, OnThisHost, Role, StoredHere
from lab.figures.comparison import compare_runs
from lab.host import cgroup, cgroup_memory
from lab.host.memory import TB_CACHE, account, available_bytes, held_on_disk, touched_bytes
from lab.host.ownership import Owner
from lab.launch.session import Session
from lab.registry import make_driver
from lab.run.estimate import Span
from lab.run.runner import Entrant, Plan, Runner, new_run_id, now_iso
from lab.service import ask
from lab.spec import Endpoint, Spec, Target
from lab.store.database import Store
from lab.store.record import Outcome, Run, RunRecord, RunStatus, TargetRecord
from lab.testing import FakeDriver
from lab.timeline import SystemClock
from lab.units import MIB
from scenarios.density import Density
from scenarios.memory import Memory

pytestmark = pytest.mark.alone  # pages that others map too are shared with them

Launched = Callable[[str], tuple[Driver, Session]]

PRIVATE, SHARED, CACHED, TMPFS, HUGE = 48 * MIB, 40 * MIB, 36 * MIB, 32 * MIB, 8 * MIB

# Two processes: both are there, and wait, before anything is taken.
HELPER = """
import mmap, os, sys, time
private, shared, cached, tmpfs, huge = map(int, sys.argv[1:6])
file, tmp = sys.argv[6:8]
def touch(area):
    for at in range(0, len(area), 4096):
        area[at:at + 8] = (at + 1).to_bytes(8, "little")
both = mmap.mmap(-1, shared, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
reading, writing = os.pipe()
other = os.fork()
if other == 0:
    os.read(reading, 1)
    for at in range(0, len(both), 4096): both[at]
    print("holds", flush=True)
    while True: time.sleep(60)
print(other, flush=True)
sys.stdin.readline()
touch(both)
os.write(writing, b"x")
first = mmap.mmap(-1, private, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
touch(first)
for path, size in ((file, cached), (tmp, tmpfs)):
    with open(path, "wb") as out:
        for _ in range(size // 65536):
            out.write(bytes(65536))
if huge:
    large = mmap.mmap(-1, huge, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)  # MAP_HUGETLB
    for at in range(0, huge, 2 << 20): large[at] = 1
print("holds", flush=True)
time.sleep(600)
"""


class Known(FakeDriver):
    """A fake engine whose instance is a process with known memory."""

    pids: Callable[[], Mapping[int, Role]]

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        instance = super().launch(spec, endpoint, mark)
        instance.host_pids = self.pids  # type: ignore[attr-defined]
        return instance


class Quiet:
    def preparing(self, target: str) -> None: ...
    def launching(self, target: str, iteration: int, warmup: bool) -> None: ...
    def committed(self, launch: object, samples: object) -> None: ...
    def turned(self, left: Span) -> None: ...
    def round_over(self, iteration: int, left: Span) -> None: ...
    def target_changed(self, record: TargetRecord) -> None: ...
    def cleaning(self) -> None: ...
    def problem(self, text: str) -> None: ...


def measure(
    store: Store,
    driver: Driver,
    target: str,
    scenario: Memory | Density,
    labels: dict[str, str],
    rounds: int = 1,
) -> RunRecord:
    clock = driver.engine.clock if isinstance(driver, FakeDriver) else SystemClock()
    run = Run(
        id=labels["lab.run"],
        scenario=scenario.name,
        started_at=now_iso(),
        ended_at=None,
        status=RunStatus.RUNNING,
        owner=labels["lab.owner"],
        lab_version="0",
    )
    record = TargetRecord(target=target, outcome=Outcome.OK)
    entrant = Entrant(target=Target.parse(target), driver=driver, info=driver.info(), record=record)
    Runner(
        run=run,
        scenario=scenario,
        entrants=[entrant],
        spec=Spec(labels=labels),
        plan=Plan(rounds=rounds, warmup=0),
        store=store,
        host={},
        progress=Quiet(),
        clock=clock,
    ).execute()
    return store.load(run.id)


def part(record: RunRecord, metric: str, **dimensions: str) -> float:
    found = [
        sample.value
        for sample in record.samples
        if sample.metric == metric and dimensions.items() <= dict(sample.dimensions).items()
    ]
    assert len(found) == 1, (metric, dimensions, found)
    return found[0]


def near(value: float, known: float) -> bool:
    return abs(value - known) <= max(0.02 * known, 256 * 1024)


@contextlib.contextmanager
def huge_pages(count: int) -> Iterator[int]:
    """So many huge pages for the time being, where this user may have them made; yields how many are free."""
    file = Path("/proc/sys/vm/nr_hugepages")
    before = file.read_text() if file.exists() else ""
    try:
        if before:
            file.write_text(str(int(before) + count))
        free = [line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("HugePages_Free")]
        yield int(free[0].split()[1]) if free else 0
    except PermissionError:
        yield 0
    finally:
        if before:
            with contextlib.suppress(PermissionError):
                file.write_text(before)


@pytest.fixture
def places() -> cgroup.Places:
    found = cgroup.places()
    if not found.can_set("memory"):
        pytest.skip(f"no memory cgroup can be made here: {found.limits['memory']}")
    return found


@pytest.mark.engine("process")
@pytest.mark.beyond_engine
def test_known_memory_is_recovered_part_by_part(
    tmp_path: Path, places: cgroup.Places, make_context: Callable[..., Context]
) -> None:
    before_labels, after_labels = run_labels("memory"), run_labels("memory")
    group = cgroup.make(places, before_labels, cgroup.Limits())
    tmp = Path("/dev/shm") / f"lab-test-{tmp_path.name}-{time.monotonic_ns()}"
    file = Path.home() / f".lab-test-{time.monotonic_ns()}"  # a disk, where /tmp may be a tmpfs
    with huge_pages(HUGE // (2 * MIB)) as free, contextlib.ExitStack() as undo:
        undo.callback(group.remove)
        undo.callback(file.unlink, missing_ok=True)
        undo.callback(tmp.unlink, missing_ok=True)
        huge = HUGE if free * 2 * MIB >= HUGE else 0
        sizes = [str(size) for size in (PRIVATE, SHARED, CACHED, TMPFS, huge)]
        entrance = "; ".join(f"open({str(path)!r}, 'w').write('0')" for path in group.entrances)
        helper = subprocess.Popen(
            [sys.executable, "-c", f"{entrance}\n{HELPER}", *sizes, str(file), str(tmp)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        undo.callback(helper.wait, timeout=30)
        undo.callback(_kill_all, group)
        assert helper.stdin is not None and helper.stdout is not None
        driver = Known("", make_context())
        driver.engine.features = frozenset({Feature.NETWORK, Feature.MARKER, Feature.HOST_PIDS})
        known = {helper.pid: Role.SERVICE}
        driver.pids = lambda: known
        scenario = Memory(settle=2.5, alloc=0, requests=0)  # the kernel sums a cgroup's figures up every 2 s
        with Store.open(str(tmp_path / "lab.db")) as store:
            known[int(helper.stdout.readline())] = Role.HELPER
            before = measure(store, driver, "fake", scenario, before_labels)
            helper.stdin.write(b"go\n")
            helper.stdin.flush()
            assert [helper.stdout.readline() for _ in range(2)] == [b"holds\n"] * 2
            after = measure(store, driver, "fake", scenario, after_labels)
            by_hand = _by_hand(group)

        def grown(metric: str, **dimensions: str) -> float:
            return part(after, metric, **dimensions) - part(before, metric, **dimensions)

        mapped = grown("cgroup_bytes", part="tmpfs", after="ready") - grown(
            "unseen_bytes", part="tmpfs-unmapped", after="ready"
        )
        assert near(mapped, SHARED), "two map it, and it counts once"
        assert near(grown("pss_bytes") - mapped, PRIVATE)
        assert near(grown("uss_bytes", after="ready"), PRIVATE)
        assert near(grown("cgroup_bytes", part="anonymous", after="ready"), PRIVATE)
        assert grown("rss_bytes", after="ready") >= PRIVATE + 2 * SHARED
        assert near(grown("cgroup_bytes", part="page-cache", after="ready"), CACHED)
        assert near(grown("unseen_bytes", part="tmpfs-unmapped", after="ready"), TMPFS)
        assert grown("unseen_bytes", part="hugetlb", after="ready") == huge
        assert by_hand is not None
        assert near(part(after, "cgroup_bytes", part="total", after="ready"), by_hand["total"])
        assert near(part(after, "cgroup_bytes", part="anonymous", after="ready"), by_hand["anonymous"])
        assert near(part(after, "cgroup_bytes", part="page-cache", after="ready"), by_hand["page-cache"])
        assert near(part(after, "cgroup_bytes", part="tmpfs", after="ready"), by_hand["tmpfs"])
        if not huge:
            pytest.skip("all parts but huge pages were recovered: none can be had here")


def _kill_all(group: cgroup.Group) -> None:
    while pids := group.pids():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _by_hand(group: cgroup.Group) -> dict[str, int]:
    """The kernel's own files."""
    directory = next(one for one in group.directories if "memory" in one.controllers)
    lines = (directory.path / "memory.stat").read_text().splitlines()
    stat = {line.split()[0]: int(line.split()[1]) for line in lines}
    if directory.version == 2:
        total = int((directory.path / "memory.current").read_text())
        anonymous, file, tmpfs = stat["anon"], stat["file"], stat["shmem"]
    else:
        total = int((directory.path / "memory.usage_in_bytes").read_text())
        anonymous, file, tmpfs = stat["total_rss"], stat["total_cache"], stat["total_shmem"]
    return {"total": total, "anonymous": anonymous, "page-cache": file - tmpfs, "tmpfs": tmpfs}


def run_labels(scenario: str) -> dict[str, str]:
    return {"lab.run": new_run_id(), "lab.scenario": scenario, "lab.owner": str(Owner.current())}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "lab.db")) as opened:
        yield opened


@pytest.fixture
def launched(make_context: Callable[..., Context]) -> Iterator[Callable[[str], tuple[Driver, Session]]]:
    """Launches the service on a target; removed at the end."""
    with contextlib.ExitStack() as undo:

        def launch(target: str) -> tuple[Driver, Session]:
            labels = {**run_labels("memory"), "lab.target": target}
            driver = make_driver(Target.parse(target), make_context())
            undo.callback(driver.close)
            spec = Spec(labels=labels)
            driver.prepare(spec)
            undo.callback(lambda: [left.delete() for left in driver.leftovers({"lab.run": labels["lab.run"]})])
            session = undo.enter_context(Session(driver, driver.info(), spec.for_launch(), SystemClock()))
            session.launch()
            return driver, session

        yield launch


def _stored(instance: Instance | None) -> dict[str, int]:
    assert isinstance(instance, StoredHere)
    return {name: held_on_disk(paths) for name, paths in instance.storage().items()}


@pytest.mark.engine("process")
def test_a_bare_process_costs_no_engine_and_its_program_on_disk(launched: Launched) -> None:
    driver, session = launched("process")
    assert isinstance(driver, EngineOnThisHost) and driver.engine_pids() == {}
    stored = _stored(session.instance)
    assert set(stored) == {"image"} and 100 * 1024 < stored["image"] < 8 * MIB
    assert isinstance(session.instance, OnThisHost)
    ask.hold(session, 30)
    before = account(session.instance.host_pids)
    ask.hold(session, 20)
    after = account(session.instance.host_pids)
    assert near(after.pss_bytes - before.pss_bytes, 20 * MIB)
    with pytest.raises(Unsupported, match="stay free"):
        ask.hold(session, 70)
    assert int(ask.facts(session)["allocated_mib"]) == 50, "what does not fit is not even asked for"


@pytest.mark.engine("docker")
def test_docker_names_its_daemons_and_where_it_keeps_a_container(launched: Launched) -> None:
    driver, session = launched("docker")
    assert isinstance(driver, EngineOnThisHost) and isinstance(session.instance, OnThisHost)
    names = driver.engine_pids()
    assert sorted(set(names.values())) == ["containerd", "dockerd"]
    assert all(Path(f"/proc/{pid}/comm").read_text().strip() == name for pid, name in names.items())
    found = account(session.instance.host_pids)
    assert not set(found.by_pid) & set(names), "a daemon is a fixed cost"
    assert set(found.pss_by_role()) == {"service", "shim", "proxy"} and found.netns == 1
    if Feature.STORAGE in driver.info().features:
        stored = _stored(session.instance)
        assert set(stored) == {"image", "writable"} and stored["image"] > 100 * 1024
        assert 0 < stored["writable"] < MIB
    charged = cgroup_memory.memory_of(found.by_pid)
    service = next(pid for pid, (role, _) in found.by_pid.items() if role is Role.SERVICE)
    if charged is not None:  # None where the service shares its cgroup
        assert near(charged.total_bytes, _by_hand(cgroup.of_process(service))["total"])


@pytest.mark.engine("libvirt")
def test_a_guests_memory_is_told_declared_and_touched_and_the_translation_cache_apart(launched: Launched) -> None:
    driver, session = launched("libvirt:microvm")
    assert isinstance(session.instance, HasGuestMemory) and isinstance(session.instance, OnThisHost)
    given = session.instance.guest_memory()
    assert given.declared_bytes == session.spec.memory_bytes and given.balloon == "none"
    emulated = driver.info().qualifiers["accel"] == "tcg"
    found = account(session.instance.host_pids, emulated=emulated)
    (vmm,) = found.by_pid
    before = touched_bytes(vmm, given.declared_bytes)
    assert before is not None and 16 * MIB < before <= given.declared_bytes
    roles = found.pss_by_role()
    assert (TB_CACHE in roles) is emulated
    if emulated:
        assert 2 * MIB <= roles[TB_CACHE] <= 65 * MIB, "domain.py declares 64 MiB for it"
    assert sum(roles.values()) == found.pss_bytes
    assert isinstance(driver, EngineOnThisHost)
    assert "libvirtd" in driver.engine_pids().values() or "virtqemud" in driver.engine_pids().values()
    stored = _stored(session.instance)
    assert {"kernel", "initramfs", "writable"} <= set(stored) and stored["kernel"] > 4 * MIB
    ask.hold(session, 60)
    after = touched_bytes(vmm, given.declared_bytes)
    assert after is not None and after > before


@pytest.mark.engine("docker")
def test_twenty_mib_more_in_a_container_is_found(store: Store, make_context: Callable[..., Context]) -> None:
    plan = {"settle": 0.3, "alloc": 0, "requests": 0}
    records = [
        measure(store, make_driver(Target("docker"), make_context()), "docker", Memory(**plan, hold=hold), labels, 4)
        for hold, labels in ((0, run_labels("memory")), (20, run_labels("memory")))
    ]
    compared = compare_runs(*records)
    assert [row.metric for row in compared.regressions] == ["pss_bytes"]
    (row,) = compared.regressions
    assert row.a is not None and row.b is not None
    assert row.b.median - row.a.median > 12 * MIB, "other containers share pages with this one, more or less of them"


@pytest.mark.engine("process")
def test_density_stops_above_an_artificial_floor_and_leaves_nothing(
    store: Store, make_context: Callable[..., Context]
) -> None:
    labels = run_labels("density")
    driver = make_driver(Target("process"), make_context())
    floor = available_bytes() - 128 * MIB - 100 * MIB  # each holds 60 MiB: there is room for a few, and not for 12
    record = measure(store, driver, "process", Density(max=12, floor=floor, settle=0, hold=60), labels)
    stopped = [sample.value for sample in record.samples if sample.metric == "stopped_level"]
    if not stopped:
        pytest.fail(f"12 instances were reached above the floor: {record.targets[0]}, {record.launches[-1:]}")
    assert max(stopped) < 12
    assert not driver.list_instances({"lab.run": labels["lab.run"]})

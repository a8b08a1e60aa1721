"""What does one instance cost this machine's memory, and what does its platform cost before the first one?

Each metric is a size in bytes as the host finds it `settle` seconds after an instant, `after`: `ready` (the first
served request), `load` (`requests` requests within a second) and `alloc` (the service holds `alloc` MiB more). Of a
function, whose platform would start a worker for each request at a time, there is no `load`, and `zero` is when every
worker has been ended.

| metric | what it is |
|---|---|
| `pss_bytes` | PSS summed over all host processes that exist because of the instance, after `ready` |
| `idle_cpus` | CPU time of the same processes while the lab waited for `settle` after `ready`, over that time: 1 is one CPU; absent with `settle=0` |
| `pss_after_bytes` (`after`) | the same after `load`, `alloc` and `zero` |
| `role_pss_bytes` (`role`, `after`) | PSS by role; `vmm-tb-cache` is an emulator's translated code, and no part of `vmm` |
| `uss_bytes`, `rss_bytes` (`after`) | the same processes' USS and RSS |
| `cgroup_bytes` (`part`, `version`, `after`) | what the cgroups of these processes alone are charged: total, anonymous, page-cache (without tmpfs), tmpfs, kernel; on version 2 also slab, page-tables and sockets, which are within kernel or total |
| `unseen_bytes` (`part`, `after`) | what PSS cannot see: page-tables (VmPTE), hugetlb, tmpfs-unmapped (the cgroup's tmpfs less what is mapped; signed, for what is charged elsewhere) |
| `netns_count` | network namespaces that are not the host's own: kernel memory that no process owns |
| `guest_ram_bytes` (`part`, `after`) | a guest's memory, declared and touched; how it could be given back is in `balloon` and `free_page_reporting` |
| `inside_bytes` (`part`) | what the service believes it has: total (MemTotal) and the limit of its own cgroup where it sees one |
| `engine_pss_bytes` (`process`) | fixed cost: daemons and control plane by PSS before this launch, of those that are still there at `ready` |
| `others_running` | what else the engine runs that is not the lab's: its processes share pages with the instance's |
| `storage_bytes` (`part`) | blocks on disk: image (shared by launches), writable, kernel, initramfs, root |

What cannot be served after `ready` (the load, the allocation) is told to be absent, with the reason; what was measured
before it stays.

PSS splits what processes share: a lone instance is charged all of its shim's and proxy's program, and less of it where
others of the same engine run beside it. What one more costs then is `density`'s question.

The overhead of a platform is its `pss_bytes` less that of the bare process in the same run; it is computed when shown.
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from lab.driver import Instance
from lab.errors import BadInput, DriverError, LabError, MeasurementError, Unsupported
from lab.features import Coldable, EngineOnThisHost, Feature, HasGuestMemory, Invoked, OnThisHost, Role, StoredHere
from lab.figures.series import ABSENT
from lab.host import procs
from lab.host.cgroup_memory import memory_of
from lab.host.cpu import cpus_used
from lab.host.memory import account, held_on_disk, refresh_counters, standing, touched_bytes
from lab.launch.session import Session
from lab.scenario import Bench
from lab.service import ask
from lab.service.load import Request, run_load
from lab.spec import Ready, Spec
from lab.units import parse_seconds

READY, LOAD, ALLOC, ZERO = "ready", "load", "alloc", "zero"
_COLD_S = 60.0

Seconds = Annotated[float, BeforeValidator(parse_seconds)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """One instance looked at from the host; `hold` MiB are held from `ready` on, `alloc` MiB more at the end."""

    settle: Annotated[Seconds, Field(ge=0, le=600)] = 1.0
    hold: Annotated[int, Field(ge=0, le=4096)] = 0
    alloc: Annotated[int, Field(ge=0, le=4096)] = 64
    requests: Annotated[int, Field(ge=0, le=10_000)] = 100

    name: ClassVar[str] = "memory"
    question: ClassVar[str] = "What does one instance cost this machine's memory, and its platform before the first?"
    headline: ClassVar[str] = "pss_bytes"
    requires: ClassVar[frozenset[Feature]] = frozenset({Feature.HOST_PIDS})

    def measure(self, bench: Bench) -> None:
        engine = _Engine(bench)
        _emit_others(bench)
        with bench.session() as session:
            engine.emit(bench)
            asked = session.answer is not None  # without a network nothing can be asked of it
            if self.hold:
                ask.hold(session, self.hold)
            self._emit(bench, session, READY)
            if asked and session.spec.builtin:
                with _kept_without(bench, "inside_bytes", "the question of what it believes to have"):
                    for part, value in ask.believed_bytes(ask.facts(session)).items():
                        bench.emit("inside_bytes", value, "bytes", part=part)
            if asked and self.requests:
                with _kept_without(bench, "pss_after_bytes after=load", "the load"):
                    _require_one(session)
                    self._load(session)
                    self._emit(bench, session, LOAD)
            if asked and session.spec.builtin and self.alloc:
                with _kept_without(bench, "pss_after_bytes after=alloc", "the allocation"):
                    ask.hold(session, self.alloc)
                    self._emit(bench, session, ALLOC)
            _emit_storage(bench, session)
            _emit_zero(bench, session)

    def _load(self, session: Session) -> None:
        instance = session.instance
        if instance is None or instance.endpoint is None:
            raise DriverError("the instance has no address to load")
        if session.spec.ready is Ready.TCP:
            raise Unsupported("it is made of HTTP requests, and the service was waited for by --ready tcp")
        result = run_load(
            instance.endpoint, rate=self.requests, seconds=1.0, path=session.spec.ready_path, nonce=session.spec.nonce
        )
        unserved = Counter(str(one.status) for one in result.requests if one.failed and not _counts(one, session.spec))
        if unserved:
            told = ", ".join(f"{count} times {status}" for status, count in unserved.most_common())
            raise DriverError(f"{unserved.total()} of {self.requests} requests of {session.spec.ready_path}: {told}")

    def _emit(self, bench: Bench, session: Session, after: str) -> None:
        instance = _on_this_host(session)
        if after == READY and self.settle:
            bench.emit("idle_cpus", cpus_used(instance.host_pids(), self.settle), "")
        else:
            time.sleep(self.settle)
        refresh_counters()
        found = account(instance.host_pids, emulated=bench.info.qualifiers.get("accel") == "tcg")
        if after == READY:
            bench.emit("pss_bytes", found.pss_bytes, "bytes")
            bench.emit("netns_count", found.netns, "")
        else:
            bench.emit("pss_after_bytes", found.pss_bytes, "bytes", after=after)
        for role, value in found.pss_by_role().items():
            bench.emit("role_pss_bytes", value, "bytes", role=role, after=after)
        bench.emit("uss_bytes", found.uss_bytes, "bytes", after=after)
        bench.emit("rss_bytes", found.rss_bytes, "bytes", after=after)
        bench.emit("unseen_bytes", found.page_table_bytes, "bytes", part="page-tables", after=after)
        bench.emit("unseen_bytes", found.hugetlb_bytes, "bytes", part="hugetlb", after=after)
        charged = memory_of(found.by_pid)
        if charged is not None:
            for part, value in charged.parts().items():
                bench.emit("cgroup_bytes", value, "bytes", part=part, version=str(charged.version), after=after)
            unmapped = charged.shmem_bytes - found.shmem_bytes
            bench.emit("unseen_bytes", unmapped, "bytes", part="tmpfs-unmapped", after=after)
        if isinstance(instance, HasGuestMemory):
            _emit_guest(bench, instance, [pid for pid, (role, _) in found.by_pid.items() if role is Role.VMM], after)


def _require_one(session: Session) -> None:
    if isinstance(session.instance, Invoked):
        raise Unsupported("a function has a worker for each request at a time, and would be more than one instance")


def _emit_zero(bench: Bench, session: Session) -> None:
    """What is held of a function while nobody calls."""
    if isinstance(session.instance, Invoked) and isinstance(session.instance, OnThisHost):
        session.instance.force_cold(timeout_s=_COLD_S)
        left = standing(procs.present(session.instance.host_pids()))
        bench.emit("pss_after_bytes", sum(one.pss_bytes for one in left.values()), "bytes", after=ZERO)


@contextlib.contextmanager
def _kept_without(bench: Bench, of: str, step: str) -> Iterator[None]:
    """What was measured before stays, where `step` fails in here; `of` is told to be absent, and why."""
    try:
        yield
    except (BadInput, MeasurementError):
        raise
    except LabError as error:
        bench.emit(ABSENT, 1, "", of=of, why=f"{step} was not served: {error.brief}")


def _counts(request: Request, spec: Spec) -> bool:
    """Whether the user calls this an answer."""
    status = request.status
    return isinstance(status, int) and any(low <= status <= high for low, high in spec.ready_status)


def _on_this_host(session: Session) -> OnThisHost:
    if not isinstance(session.instance, OnThisHost):
        raise DriverError("the engine says that it tells its instances' processes, and this instance does not")
    return session.instance


def _emit_guest(bench: Bench, instance: HasGuestMemory, vmms: list[int], after: str) -> None:
    given = instance.guest_memory()
    told = {"balloon": given.balloon, "free_page_reporting": "on" if given.free_page_reporting else "off"}
    if after == READY:
        bench.emit("guest_ram_bytes", given.declared_bytes, "bytes", part="declared", after=after, **told)
    for pid in vmms:
        touched = None
        with contextlib.suppress(ProcessLookupError):  # it ended since: the account before this was of a living one
            touched = touched_bytes(pid, given.declared_bytes)
        if touched is not None:
            bench.emit("guest_ram_bytes", touched, "bytes", part="touched", after=after, **told)


class _Engine:
    """The daemons as they are before this launch. Of those that are gone once it serves, none was a standing cost: the
    network plugin of a pod that was just being removed, a shim on its way out."""

    def __init__(self, bench: Bench) -> None:
        driver = bench.driver
        self._names = procs.present(driver.engine_pids()) if isinstance(driver, EngineOnThisHost) else {}
        self._held = standing(self._names)

    def emit(self, bench: Bench) -> None:
        """The PSS by name of what still runs."""
        sums: Counter[str] = Counter()
        for process, holding in self._held.items():
            if process.alive():
                sums[self._names[process]] += holding.pss_bytes
        for name, value in sums.items():
            bench.emit("engine_pss_bytes", value, "bytes", process=name)


def _emit_others(bench: Bench) -> None:
    if Feature.COLD in bench.info.features and isinstance(bench.driver, Coldable):
        bench.emit("others_running", len(bench.driver.others_running()), "")


def _emit_storage(bench: Bench, session: Session) -> None:
    instance: Instance | None = session.instance
    if Feature.STORAGE in bench.info.features and isinstance(instance, StoredHere):
        for part, paths in instance.storage().items():
            bench.emit("storage_bytes", held_on_disk(paths), "bytes", part=part)

"""How much of this host's kernel does an instance of the service reach?

Each metric has one value for a launch and an `act`: `launch` (from the request to the engine until the first served
request), `request` (one more of the same requests, another having gone before) and `mix` (460 system calls of 11 fixed
kinds and counts, made by the service). It is seen from outside, by the host's kernel.

| metric | what it is | unit |
|---|---|---|
| `functions` (`act`, `method`) | distinct functions of this host's kernel that ran for the instance during the act, less those seen in the idle window | functions |
| `kernel_thread_functions` (`act`, `method`) | the same of all the kernel's own threads, whosever work they did: no part of `functions` | functions |
| `syscalls_distinct` (`act`) | system calls by number that this host's kernel was asked for by the instance's processes during the act | calls |
| `syscalls_calls` (`act`) | how often, in all | calls |
| `idle_functions` (`act`, `method`) | distinct functions that ran for the instance in a window of the same length in which nothing was asked of it | functions |
| `idle_syscalls_calls` (`act`) | its system calls in that window; they are no part of a difference, but stand beside | calls |
| `window_s` (`act`) | how long each of the two windows was | s |

Traced is the whole system, in a private tracing instance named for the run. Whose each event is, is told afterwards, by
the threads of every host process that exists because of the instance and by what they fork. For `launch` these are the
threads of the engine's daemons, all processes that they or the lab fork meanwhile, and the instance's own; the lab's own
part is left out. What ran in an interrupt is left out as well, as it comes at whosever time it is, and so is
what other daemons do on the engine's request, such as systemd, which makes cgroups, and udev.

For `launch`, nobody else may use the engine meanwhile: an idle window in which its daemons start a process is taken
again, up to five times in all. Others' launches during the act itself cannot be told apart.

`method` is how the functions are known, and figures of two methods share no row:

- `function`: ftrace's function tracer, which tells every function that the kernel's build lets it (the measure of the
  literature, as in 'host attack profile'). It is taken where the host allows it.
- `stacks`: the functions that were under way at any of the kernel's tracepoints (groups: see the launch's facts), by
  the stack at that instant. A lower bound: what meets no tracepoint is not seen.

A launch's record keeps the names, the calls by number and the groups under `hostkernel`. Where the kernel lost an event,
the round fails and says what to raise. Where the service runs on this host's own kernel, every call of the mix must be
seen of the service exactly as often as it made it, or the round fails as well.

A target without a network has `launch` only. The trace's text is never made: its pages are read as they are, and the
addresses named by /proc/kallsyms.
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from lab.errors import DriverError, MeasurementError
from lab.features import EngineOnThisHost, Feature, OnThisHost, Role
from lab.figures.evidence import Meaning, Seen, tell
from lab.figures.series import ABSENT
from lab.host import procs
from lab.host.tracing.instance import Method, Tracing, require_tracing, tracing
from lab.host.tracing.traces import KTHREADD, Part, Symbols, Trace, pack
from lab.launch.kernels import is_this_hosts
from lab.launch.session import Session
from lab.scenario import Bench
from lab.service import ask
from lab.units import MIB

LAUNCH, REQUEST, MIX = "launch", "request", "mix"

_BY_EXEC = "without a network, request and mix would come by the engine's exec, whose own processes would be counted"
_IDLE_ATTEMPTS = 5
_BUILT = re.compile(r"-[0-9a-f]{16}$")
"""What tells the lab's own programs from those of other sources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostkernel:
    """One launch, one request and one mix of system calls, each in a window of the host kernel's trace; that of request
    and mix lasts `window` seconds. The trace's buffers take `buffer` MiB."""

    window: Annotated[float, Field(ge=0.2, le=2)] = 1.0
    buffer: Annotated[int, Field(ge=1, le=4096)] = 384

    name: ClassVar[str] = "hostkernel"
    question: ClassVar[str] = "How much of this host's kernel does an instance of the service reach?"
    headline: ClassVar[str] = "functions"
    own_service: ClassVar[bool] = True
    requires: ClassVar[frozenset[Feature]] = frozenset({Feature.HOST_PIDS})

    claim: ClassVar[str] = (
        "Containers share the host's kernel, and so isolate less; a virtual machine's workload hardly reaches it."
    )
    caveats: ClassVar[Sequence[str]] = (
        "Functions that an instance reaches are not ways out of it: counting them misses defence in depth. A virtual "
        "machine's or a sandbox's monitor may run more of the host's code than a container does, and is a second wall "
        "all the same (Middleware'21, finding 28: gVisor and Firecracker ran more of it).",
        "Under the method 'stacks' the figures are lower bounds: a function that meets no tracepoint is not seen. They "
        "are not to be compared with figures of the method 'function', nor with published ones.",
        "Under emulation (tcg) the monitor translates the guest's code itself: its system calls and faults are no "
        "measure of a virtual machine under KVM, whose guests reach the host by the kvm module.",
        "What the kernel does in interrupts and in its own threads is no part of 'functions', as it cannot be told "
        "whose work it is.",
        "What other daemons do because the engine asks them to is not counted: systemd, where it makes the cgroups of "
        "containers and machines, and udev, which looks at each new network device.",
        "How many functions a kernel's build has, and lets be traced, differs: figures of two hosts do not compare.",
    )
    meanings: ClassVar[Mapping[str, Meaning]] = {
        "method": Meaning(
            "how the functions are known that the host's kernel ran",
            "a function tracer tells each, stacks only those that were under way at a tracepoint",
            "https://docs.kernel.org/trace/ftrace.html",
        ),
        "programs run by launch": Meaning(
            "the programs that the engine and what it starts execute until the service serves, as the host's kernel "
            "saw them, beside the daemons that run already",
            "each is code that runs on the host, mostly as root, for one launch",
            "https://docs.kernel.org/trace/events.html",
        ),
        "system calls of the mix": Meaning(
            "whether the system calls that the service makes reach this host's kernel as they are",
            "in a container each is the host kernel's own to answer; a guest's are its own kernel's, and its monitor "
            "makes others",
            "https://docs.kernel.org/trace/events.html",
        ),
    }

    @property
    def done(self) -> Sequence[str]:
        return (
            "The whole host was traced in a private tracing instance, and each event was attributed afterwards by "
            "process: for a launch to the engine's daemons, to what they and the lab started, and to the instance.",
            "Launch: until the first served request, and then for as long with the instance idle. Functions seen idle "
            "are subtracted.",
            f"Request and mix: each in a window of {self.window:g} s, beside an idle one of the same length. The mix "
            "is a fixed number of each of 11 system calls, made by the service itself.",
            "A round in which the kernel lost a single event, or in which a call of the mix was not seen exactly as "
            "often as it was made where the service has the host's own kernel, has no figures.",
        )

    @property
    def memory_bytes(self) -> int:
        return self.buffer * MIB

    @property
    def changes(self) -> str:
        return (
            "traces this whole machine's kernel for some seconds a round, in an instance of its own with "
            f"{self.buffer} MiB of buffers: everything is slower meanwhile"
        )

    @property
    def likely_s_per_round(self) -> float:
        return 3 * self.window + 6  # two windows of the launch, and reading what was traced

    def look(self) -> None:
        require_tracing()

    def measure(self, bench: Bench) -> None:
        with tracing(bench.spec.labels, buffer_bytes=self.memory_bytes) as traced, contextlib.ExitStack() as launched:
            said = (
                "function tracer" if traced.method is Method.FUNCTION else "kernel stacks at tracepoints: a lower bound"
            )
            tell(bench, Seen.OUTSIDE, "method", said)
            session = self._launch(bench, traced, launched)
            session.beside["hostkernel"] |= {"method": traced.method.value, "groups": list(traced.groups)}
            if session.answer is None:
                bench.emit(ABSENT, 1, "", of="functions", why=_BY_EXEC)
                return
            ask.get(session, session.spec.ready_path)  # what a first one alone meets (neighbours, pages) is behind it
            idle = self._within(bench, session, traced)
            for act in (REQUEST, MIX):
                _emit(bench, session, act, self._within(bench, session, traced, act), idle)

    def _launch(self, bench: Bench, traced: Tracing, launched: contextlib.ExitStack) -> Session:
        """Launch and look; the session ends with `launched`."""
        daemons = _threads(bench.driver.engine_pids() if isinstance(bench.driver, EngineOnThisHost) else ())
        lab = _threads([os.getpid()])
        begun = time.monotonic()
        with traced.on():
            session = launched.enter_context(bench.session())
            took_s = time.monotonic() - begun
        own = _threads(_pids(session))
        seen = traced.read()
        known = own | daemons
        act = _Window(traced, took_s, seen, (seen.family(known) | seen.offspring(lab)) - lab)
        idle = _idle(session, traced, took_s, known)
        session.beside["hostkernel"] = {}
        _emit(bench, session, LAUNCH, act, idle)
        programs = sorted({_named(program) for program in act.part.programs})
        tell(bench, Seen.OUTSIDE, "programs run by launch", ", ".join(programs) or "none")
        return session

    def _within(self, bench: Bench, session: Session, traced: Tracing, act: str = "") -> _Window:
        """What the instance's processes did within a window, in which `act` was asked of it."""
        told: Mapping[str, Any] = {}
        own = _threads(_pids(session))
        with traced.on():
            until = time.monotonic() + self.window
            if act == REQUEST:
                ask.get(session, session.spec.ready_path)
            elif act == MIX:
                told = ask.post(session, "/mix")
            rest_s = until - time.monotonic()
            time.sleep(max(rest_s, 0))
        if rest_s < 0:
            raise MeasurementError(
                f"the {act} took longer than its window of {self.window:g} s", resolution="give a longer --param window"
            )
        seen = traced.read()
        pids = _pids(session)
        if act == MIX:
            # The service's own calls: a shim or proxy beside it may make some of the same at any time.
            service = _threads(pid for pid, role in pids.items() if role is Role.SERVICE)
            _check_mix(bench, session, told, seen.part(seen.family(service), Symbols.now()))
        return _Window(traced, self.window, seen, seen.family(own | _threads(pids)))


def _idle(session: Session, traced: Tracing, seconds: float, known: set[int]) -> _Window:
    """A window of `seconds` in which nobody asked anything of the engine: its daemons started no process."""
    for _ in range(_IDLE_ATTEMPTS):
        with traced.on():
            time.sleep(seconds)
        seen = traced.read()
        if not seen.offspring(known):
            return _Window(traced, seconds, seen, seen.family(known | _threads(_pids(session))))
    raise MeasurementError(
        f"the engine was not idle: in each of {_IDLE_ATTEMPTS} windows of {seconds:.1f} s it started processes that "
        "this run had not asked for",
        resolution="run it while nobody else uses the engine",
    )


class _Window:
    """What one window showed, of the instance and of the kernel's own threads."""

    def __init__(self, traced: Tracing, seconds: float, seen: Trace, tasks: set[int]) -> None:
        self.method = traced.method
        self.seconds = seconds
        kernels = {pid for pid, entry in procs.table().items() if KTHREADD in (pid, entry.parent)}
        symbols = Symbols.now()
        self.part: Part = seen.part(tasks, symbols)
        self.kernel_threads: Part = seen.part(seen.family({KTHREADD} | kernels), symbols)


def check_mix(made: Mapping[int, tuple[str, int]], seen: Mapping[int, int]) -> None:
    """Raises MeasurementError unless the calls `made` (name and count, by number) were `seen` exactly as often."""
    wrong = [
        f"{name} (number {number}): {count} made, {seen.get(number, 0)} seen"
        for number, (name, count) in made.items()
        if seen.get(number, 0) != count
    ]
    if wrong:
        raise MeasurementError("the trace does not show the mix as it was made", details="\n".join(wrong))


def _check_mix(bench: Bench, session: Session, told: Mapping[str, Any], part: Part) -> None:
    try:
        calls = {int(one["number"]): (str(one["name"]), int(one["count"])) for one in told["calls"]}
        failed = {str(one["name"]): int(one["failed"]) for one in told["calls"] if one["failed"]}
    except (KeyError, TypeError, ValueError) as error:
        raise MeasurementError("what the service told of its mix is not whole", details=repr(told)) from error
    if failed:
        raise MeasurementError(f"calls of the mix failed: {failed}")
    session.beside["hostkernel"]["mix_made"] = dict(calls.values())
    clock = session.answer.clock() if session.answer else None
    if clock is not None and is_this_hosts(clock, session.instance):
        check_mix(calls, part.calls)
        said = f"each of the {sum(count for _, count in calls.values())} seen by this host's kernel, as it was made"
    else:
        said = "a kernel of its own answers them: this host's sees what its monitor or sandbox asks for instead"
    tell(bench, Seen.OUTSIDE, "system calls of the mix", said)


def _emit(bench: Bench, session: Session, act: str, window: _Window, idle: _Window) -> None:
    where = {"act": act, "seen": Seen.OUTSIDE.value}
    by = {**where, "method": window.method.value}
    functions = window.part.functions - idle.part.functions
    kernel_threads = window.kernel_threads.functions - idle.kernel_threads.functions
    if not window.part.calls or not functions:
        raise MeasurementError(f"the trace shows nothing of the {act}, which must have been there")
    bench.emit("functions", len(functions), "functions", **by)
    bench.emit("kernel_thread_functions", len(kernel_threads), "functions", **by)
    bench.emit("syscalls_distinct", len(window.part.calls), "calls", **where)
    bench.emit("syscalls_calls", window.part.calls.total(), "calls", **where)
    bench.emit("idle_functions", len(idle.part.functions), "functions", **by)
    bench.emit("idle_syscalls_calls", idle.part.calls.total(), "calls", **where)
    bench.emit("window_s", window.seconds, "s", **where)
    session.beside["hostkernel"][act] = {
        "functions": pack(window.part.functions),
        "idle_functions": pack(idle.part.functions),
        "calls": {str(number): count for number, count in sorted(window.part.calls.items())},
    }


def _named(program: str) -> str:
    """What a reader knows it by; one that is run by a descriptor is a copy of who runs it, as OCI runtimes do it."""
    if program.startswith(("/proc/", "/dev/fd/")):
        return "itself"
    return _BUILT.sub("", Path(program).name)


def _pids(session: Session) -> Mapping[int, Role]:
    if not isinstance(session.instance, OnThisHost):
        raise DriverError("the engine says that it tells its instances' processes, and this instance does not")
    return session.instance.host_pids()


def _threads(pids: Iterable[int]) -> set[int]:
    """The tasks of processes; one that has ended meanwhile has none."""
    found: set[int] = set()
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found |= {int(name) for name in os.listdir(f"/proc/{pid}/task")}  # noqa: PTH208  names only
    return found

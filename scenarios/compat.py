"""What of what services do works here?

The lab's own service tries a fixed list of features once each: sockets, locks, files, events, memory, processes,
namespaces, its kernel, devices, /proc. docs/compat.md has a line for each of them. None changes anything beyond a
process and a directory of its own.

| metric (`seen`=inside) | what is counted |
|---|---|
| `features_refused` | features that a call was refused for, with an errno, of `features_tried` |
| `features_differing` | those of which all calls succeeded, and did not do what they say |
| `features_unanswered` | those that did not end in 2 s, or were ended by a signal (SIGSYS is a filter's) |

Each is told in words: `works`, with what it was given where that says something; `refused (EPERM)`; `works otherwise`;
`no answer in 2 s`; `killed by SIGSYS`. No feature weighs more than another, and the counts are no score: what a service
does not do, it does not miss. A bare process is tried as what it is, root where the lab is.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from lab.errors import MeasurementError, Unsupported
from lab.features import Feature
from lab.figures.evidence import Meaning, Seen, Shown, tell
from lab.figures.series import ABSENT, SEEN
from lab.scenario import Bench
from lab.service import ask

WORKS = "works"
_TIMEOUT_S = 65.0  # beyond the service's own for all of them
_NAMES = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP", errno.EAGAIN: "EAGAIN"}
_UNANSWERED = ("timeout", "signal", "exit")
_UNTRIED = ("late", "unmade")


@dataclass(frozen=True, kw_only=True)
class Compat:
    """One instance, whose service tries each feature; with `all` also what is the same on every target is shown."""

    all: bool = False

    name: ClassVar[str] = "compat"
    question: ClassVar[str] = "What of what services do works here?"
    headline: ClassVar[str] = "features_refused"
    own_service: ClassVar[bool] = True
    rounds: ClassVar[int] = 1
    warmup: ClassVar[int] = 0
    requires: ClassVar[frozenset[Feature]] = frozenset()
    claim: ClassVar[str] = "A service that runs as a bare process runs in a container or a virtual machine unchanged."
    caveats: ClassVar[Sequence[str]] = (
        "A feature that is refused is missed only by what uses it: the rows are no score, and none weighs more.",
        "Each was tried in one form: what it does with other arguments, or how fast, is not told.",
        "What is refused to the lab's own service, with the engine's defaults, may be granted by an option "
        "of the engine.",
        "The bare process was tried with the rights that the lab has: as root, it is refused what its host "
        "refuses root.",
    )

    @property
    def meanings(self) -> Mapping[str, Meaning]:
        return MEANINGS

    @property
    def done(self) -> Sequence[str]:
        return (
            "One instance of the lab's own service was launched, and asked to try each feature once.",
            "Each was tried by a process of its own, in a directory of its own below /tmp, with a limit of 2 s; "
            "both were "
            "then removed.",
        )

    def measure(self, bench: Bench) -> None:
        if not bench.info.features & {Feature.NETWORK, Feature.EXEC}:
            raise Unsupported("there is neither a network nor a way in to ask by", resolution="leave this target out")
        with bench.session() as session:
            told = parse(ask.get(session, "/compat", timeout_s=_TIMEOUT_S))
            shown = Shown.ALL if self.all else Shown.DIFFERING
            for name, (kind, number, given) in told.items():
                tell(bench, Seen.INSIDE, name, said(kind, number, given), shown=shown)
            for metric, count in counts([kind for kind, _, _ in told.values()]).items():
                if isinstance(count, str):
                    bench.emit(ABSENT, 1, "", of=metric, why=count)
                else:
                    bench.emit(metric, count, "", **{SEEN: Seen.INSIDE})


Told = tuple[str, int, str]
"""How one try ended: its kind, a number (of an error, a signal), and what it was given."""


def parse(answer: Mapping[str, Any]) -> Mapping[str, Told]:
    """What the service told, by feature. Raises MeasurementError for what is no such answer."""
    try:
        return {str(name): (str(kind), int(number), str(given)) for name, kind, number, given in answer["features"]}
    except (KeyError, TypeError, ValueError) as error:
        raise MeasurementError(f"the service's account of features cannot be read: {error!r}") from error


def said(kind: str, number: int, given: str) -> str:
    """How one try ended, in words that are equal where that is."""
    words = {
        "ok": f"{WORKS} ({given})" if given else WORKS,
        "wrong": "works otherwise",
        "errno": f"refused ({_NAMES.get(number, f'errno {number}')})",
        "signal": f"killed by {_signal_name(number)}",
        "timeout": f"no answer in {number} s",
        "exit": "ended without an answer",
        "late": "not tried in time",
        "unmade": "not tried: no process, or no directory below /tmp, could be made",
    }
    return words.get(kind, f"not known: {kind}")


def counts(kinds: Sequence[str]) -> Mapping[str, int | str]:
    """The counted figures by metric; a text where there is none, which says why."""
    late = sum(kind in _UNTRIED for kind in kinds)
    each = {
        "features_refused": sum(kind == "errno" for kind in kinds),
        "features_differing": sum(kind == "wrong" for kind in kinds),
        "features_unanswered": sum(kind in _UNANSWERED for kind in kinds),
    }
    why = f"{late} features were not tried"
    return {**{metric: why if late else count for metric, count in each.items()}, "features_tried": len(kinds) - late}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


MEANINGS: Mapping[str, Meaning] = {
    "sockets": Meaning(
        "Sockets of the families that services use, within the service's own process or on its own loopback.",
        "A raw or packet socket takes a capability (net_raw), a low port another (net_bind_service) or the setting "
        "ip_unprivileged_port_start; IPv6 and vsock are there where the network or the kernel has them.",
        "socket(2), capabilities(7)",
    ),
    "locks": Meaning(
        "Locks of files, with a second process that is to be refused.",
        "They are the file system's to keep: one in user space or over a network may have some, and lose others.",
        "flock(2), fcntl(2)",
    ),
    "files": Meaning(
        "Kinds of writing, copying and naming files, below /tmp.",
        "O_DIRECT, attributes, holes and handles are the file system's to have, and a tmpfs is not a disk; "
        "device nodes and "
        "other owners take capabilities, and a mount with nodev opens no device.",
        "open(2), xattr(7), mount(8)",
    ),
    "events": Meaning(
        "Ways to wait for many things at once, and to be told of files.",
        "Servers choose by what there is: an event loop on io_uring falls back to epoll where a filter refuses it.",
        "epoll(7), io_uring(7), fanotify(7)",
    ),
    "timers": Meaning(
        "Timers as descriptors and signals.", "One that wakes a machine takes wake_alarm.", "timerfd_create(2)"
    ),
    "memory": Meaning(
        "Kinds of mappings, and memory that is shared with others.",
        "A compiler at run time needs memory that is executable; databases lock theirs and ask for huge "
        "pages, of which a "
        "host may keep none; shared memory by name lies in /dev/shm.",
        "mmap(2), shm_overview(7), userfaultfd(2)",
    ),
    "processes": Meaning(
        "Making, tracing, ranking and confining processes.",
        "Debuggers and sandboxes trace and filter; a higher priority, or a higher limit, takes a capability that few "
        "containers have.",
        "ptrace(2), setpriority(2), seccomp(2)",
    ),
    "namespaces": Meaning(
        "Namespaces of its own, and a mount within one.",
        "Whoever runs containers or a browser's sandbox inside an instance needs them.",
        "namespaces(7), unshare(2)",
    ),
    "kernel": Meaning(
        "What profilers, tracers and sandboxes ask of the kernel.",
        "They are the host's where the kernel is shared, and settings of the host refuse them to all; a "
        "guest has its own.",
        "perf_event_open(2), bpf(2), landlock(7)",
    ),
    "clocks": Meaning(
        "Whether it might set the clock, asked in a form that the kernel then refuses as wrong; and its resolution.",
        "Time is the whole kernel's, or the guest's own.",
        "settimeofday(2), clock_getres(2)",
    ),
    "devices": Meaning(
        "Devices that do nothing when they are opened.",
        "VPNs need tun, file systems in user space fuse, virtual machines kvm.",
        "Documentation/admin-guide/devices.rst",
    ),
    "/proc": Meaning(
        "Files that services and their agents read of themselves, and those by which they ask not to be killed.",
        "Agents of monitoring read the host's there, unless a kernel of its own, or a file system put over "
        "it, shows less.",
        "proc(5)",
    ),
    "measure": Meaning(
        "What a service is told of its own size: processors, memory, and its cgroup's limit.",
        "Runtimes size heaps and pools by it; in a container /proc tells of the whole host.",
        "sysconf(3), cgroups(7)",
    ),
}

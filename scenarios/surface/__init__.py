"""What does the workload share with its host, and what can it touch?

Facts in words, from both sides, with the same probes for every target; and of them, counted:

| metric (`seen`=inside) | what is counted |
|---|---|
| `calls_refused` | system calls answered with EPERM or EACCES, or by SIGSYS, of `calls_tried` |
| `calls_filtered` | those of them that only a filter before the kernel's own code can have refused |
| `calls_absent` | system calls answered with ENOSYS: by a kernel without them, or a filter that says so |
| `calls_not_tried` | those without a harmless form |
| `namespaces_own` | of the kinds that the host has, those that are not the host's: all under a kernel of its own |
| `capabilities_effective` | bits of the effective set |
| `devices_seen` | block and character devices below /dev |
| `mounts_seen` | lines of /proc/self/mountinfo |
| `host_processes_seen` | processes in /proc that are not the service's own, where its pid namespace is the host's |
| `writable_paths` | regular files of /proc, without processes' own, and of /sys that it may write |

From inside, each probe is a process of its own with a time limit of its own, below the service: one that does not end
is told as `timed out`. None writes, and of devices only /dev/kmsg is opened, whose opening does nothing: what may be
read and written is asked by faccessat(2).
What a workload shares entirely, all namespaces being the host's, is looked at without privileges (uid 65534 where
the service is root, no capabilities), since that is how a service is run on a host that it shares.

From the host, /proc tells of each process that exists because of the instance. Of other users' processes part of it is
told to root only, and then is said not to be readable. The facts are no score: equal words are equal facts, and none
weighs more by standing in a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from lab.errors import Unsupported
from lab.features import Feature, OnThisHost
from lab.figures.evidence import Meaning, Seen, tell
from lab.figures.series import ABSENT, SEEN
from lab.launch.session import Session
from lab.scenario import Bench
from lab.timeline import Clock, Phase, Source
from scenarios.surface import calls, inside, outside, syscalls
from scenarios.surface.meanings import INSIDE, OUTSIDE


@dataclass(frozen=True, slots=True)
class Surface:
    """One instance, looked at from inside and from the host."""

    name: ClassVar[str] = "surface"
    question: ClassVar[str] = "What does the workload share with its host, and what can it touch?"
    headline: ClassVar[str] = "calls_refused"
    own_service: ClassVar[bool] = True
    rounds: ClassVar[int] = 1
    warmup: ClassVar[int] = 0
    requires: ClassVar[frozenset[Feature]] = frozenset()
    claim: ClassVar[str] = "Containers are not always as secure as virtual machines, which share no kernel."
    caveats: ClassVar[Sequence[str]] = (
        "What can be reached is not what can be broken: these facts bound the first, and say nothing of faults in it.",
        "Equal capabilities or settings under different kernels are not equal rights over the host.",
        "What may be read or written is what modes, capabilities and mounts say; a file may still refuse on opening.",
        "Where all namespaces are the host's, the probes ran without privileges, and so show the least: most calls "
        "refused there are refused to any user, and root would have them.",
        "A call that was let through did nothing: what it does with other arguments, and other rights, is not told.",
    )
    meanings: ClassVar[Mapping[str, Meaning]] = {**INSIDE, **OUTSIDE}

    @property
    def done(self) -> Sequence[str]:
        return (
            "One instance of the lab's own service was launched, and the host's /proc read for every process that "
            "exists because of it.",
            "Then the service was asked to look around: each probe in a process of its own, with a limit of 4 s; "
            "nothing was written, and of devices only the kernel's log was opened, for reading.",
            "Last, every system call that has a harmless form was tried once, by a process that ended.",
        )

    def measure(self, bench: Bench) -> None:
        if not bench.info.features & {Feature.NETWORK, Feature.EXEC}:
            raise Unsupported("there is neither a network nor a way in to ask by", resolution="leave this target out")
        with bench.session() as session:
            # Before the probes, whose own processes would be seen.
            _outside(bench, session)
            _inside(bench, session)


def _outside(bench: Bench, session: Session) -> None:
    if not isinstance(session.instance, OnThisHost):
        tell(bench, Seen.OUTSIDE, "host processes", "none that this host can tell")
        return
    pids = session.instance.host_pids()
    found = outside.look(pids)
    for probe, said in outside.facts(found, outside.carrier(pids)).items():
        tell(bench, Seen.OUTSIDE, probe, said)


def _inside(bench: Bench, session: Session) -> None:
    found = inside.look(session, inside.Host.here())
    for probe, said in inside.facts(found).items():
        tell(bench, Seen.INSIDE, probe, said)
    tell(bench, Seen.INSIDE, "clock", _clock(session))
    for metric, value in inside.counts(found).items():
        _count(bench, metric, value)
    tried = syscalls.probe_calls(session, drop=found.dropped)
    for probe, said in calls.facts(tried).items():
        tell(bench, Seen.INSIDE, probe, said)
    for metric, count in calls.counts(tried).items():
        _count(bench, metric, count)


def _clock(session: Session) -> str:
    """Whose the service's clock is, as this launch proved (docs/method.md, rule 2)."""
    clocks = {mark.clock for mark in session.timeline if mark.source is Source.SERVICE and mark.phase is Phase.MAIN}
    if not clocks:
        return inside.NOT_TOLD
    return "the host's" if Clock.SHARED in clocks else "not proven to be the host's"


def _count(bench: Bench, metric: str, value: int | str) -> None:
    if isinstance(value, str):
        bench.emit(ABSENT, 1, "", of=metric, why=value)
    else:
        bench.emit(metric, value, "", **{SEEN: Seen.INSIDE})

"""What is claimed, what must be known beside the figures, and what each trouble teaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab.figures.evidence import Meaning
from scenarios.containment.troubles import Trouble

CLAIM = (
    "Malware or a crash in a virtual machine stays in that machine, since each has a kernel of its own; containers "
    "share the host's kernel, so that trouble in one spreads to its neighbours and to the host."
)

CAVEATS: Sequence[str] = (
    "Availability is the share of requests, one every 10 ms, that were answered within 1 s. The host is a control "
    "instance of the lab in no limit of any instance. Silences in which the watcher itself was late by more than 5 ms "
    "are its own and stand apart; where it was late for more than 5 % of the time there is no figure.",
    "Each request has a new connection, but for a guest: QEMU's user-mode network drops connections that come while it "
    "is busy, and the client's kernel tries again only after 1 s, so that guests are asked on connections kept open.",
    "What is shown holds for limits that were read back from the kernel, and for these accidents. An instance without "
    "limits, or an attack on the kernel itself, is another matter: nothing here attacks anything.",
    "Each trouble is watched for a few seconds on one machine, against as long a quiet window just before it. A short "
    "silence may be the machine's other work: compare it with the quiet one.",
)

_V2 = "https://docs.kernel.org/admin-guide/cgroup-v2.html"
_SYSCTL = "https://docs.kernel.org/admin-guide/sysctl/kernel.html"

MEANINGS: Mapping[str, Meaning] = {
    Trouble.FILES: Meaning(
        "A process opens files until it may open no more.",
        "The limit on open files is each process's own in every kernel; the host's table of files is shared by all "
        "containers, and a guest has one of its own.",
        "https://docs.kernel.org/admin-guide/sysctl/fs.html",
    ),
    Trouble.DISK: Meaning(
        "A process writes until its file system is full.",
        "A tmpfs with a size fills up alone. Without a size, or on a shared disk without a quota, the host and every "
        "neighbour run out of room with it.",
        "https://docs.kernel.org/filesystems/tmpfs.html",
    ),
    Trouble.CPU: Meaning(
        "A process for each CPU that the workload sees computes without a pause.",
        "A container is throttled by the host's scheduler at its quota; a guest has no more than its virtual CPUs, "
        "each of which is a thread of the host's.",
        "https://docs.kernel.org/scheduler/sched-bwc.html",
    ),
    Trouble.FORKS: Meaning(
        "A process makes processes until it is refused.",
        "Containers share the host's table of processes: without pids.max one could fill it for all. A guest fills "
        "its own, of which the host sees one process.",
        f"{_V2}#pid",
    ),
    Trouble.MEMORY: Meaning(
        "A process takes twice the memory that the instance may have.",
        "The host's kernel kills within the cgroup that is at its limit; in a guest the guest's own kernel does, and "
        "the host does not even see it, nor has it the guest's memory back afterwards, unless a balloon gives it.",
        f"{_V2}#memory",
    ),
    Trouble.KILL: Meaning(
        "The service's process is killed.",
        "Whether anything starts it again is the platform's policy, and not isolation. The first process of a pid "
        "namespace cannot be killed from within, and takes all others with it; where it ends a guest's work, its "
        "machine ends.",
        "https://man7.org/linux/man-pages/man7/pid_namespaces.7.html",
    ),
    Trouble.PANIC: Meaning(
        "The instance's own kernel panics.",
        "Only where a kernel is the instance's own can it panic alone: a container's kernel is the host's, whose panic "
        "is everybody's. This is what a machine boundary adds.",
        f"{_SYSCTL}#panic",
    ),
    Trouble.CLOCK: Meaning(
        "The instance starts with a clock that is a day slow.",
        "A guest keeps the time of day itself. Containers have the host's, and whoever may set it sets it for all: "
        "time namespaces do not hold it.",
        "https://man7.org/linux/man-pages/man7/time_namespaces.7.html",
    ),
}


def done(seconds: int, troubles: Sequence[Trouble]) -> list[str]:
    """What the lab does, a sentence each."""
    return [
        f"In one instance of each target, one after the other: {', '.join(troubles)}; each ends by a deadline that the "
        "instance itself holds, and an instance that did not survive is replaced by a new one.",
        "Before each, the limit that holds it in was read back from the kernel: of a cgroup with no other processes, "
        "of the machine's memory for a guest, or by the workload itself for open files and for the size of its /tmp. "
        "Where that did not prove it, the trouble was not made.",
        f"Meanwhile a second instance of the same target, and a control instance on the host, were asked every 10 ms "
        f"for {seconds} s, after {seconds} s of quiet watched the same way.",
        "Afterwards the kernel's counters, the guest's console, and what was left of processes and memory were read "
        "from the host.",
    ]

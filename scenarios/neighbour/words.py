"""What the scenario `neighbour` says of itself, of its antagonists and of what it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab.figures.evidence import Meaning
from lab.service.task import Antagonist

WORST: Mapping[Antagonist, str] = {
    Antagonist.BUSY: "computes without pause",
    Antagonist.BANDWIDTH: "copies memory that no cache holds",
    Antagonist.CACHE: "writes at random to as much memory as the last-level cache has",
    Antagonist.FSYNC: "appends to a file and has it written to disk, each time",
    Antagonist.NETWORK: "sends itself data over its own loopback",
    Antagonist.EXECS: "starts programs one after the other",
}
UNITS: Mapping[Antagonist, tuple[str, str]] = {
    Antagonist.BUSY: ("process", "processes"),
    Antagonist.NETWORK: ("connection", "connections"),
    Antagonist.EXECS: ("process that starts others", "processes that start others"),
}

CLAIM = (
    "Containers share a kernel, so that a noisy one slows its neighbours down; a virtual machine keeps its noise "
    "to itself."
)
CAVEATS: Sequence[str] = (
    "The load's client runs on this host too. Where no core is left to it, it shares the victim's, which makes all "
    "windows slower and the ratio smaller.",
    "A neighbour can make the median faster: a CPU that it keeps awake need not wake up for a request. What it takes "
    "shows in the slowest answers.",
    "Only the service or its VMM is held to CPUs: what an engine runs beside it, such as Docker's proxy, is the "
    "host's to place.",
    "Emulated guests (tcg) show what emulation takes, and nothing of virtual machines in general: each system call "
    "of theirs is computed, so that there is little in the host's kernel to be in each other's way.",
    "What two CPUs share is the kernel's word; a hypervisor below it may place them otherwise.",
    "A client inside a target that shares the antagonist's CPU is made late by it, and then tells nothing.",
    "A guest's own view of stolen time is not read, since nothing runs in it but the service.",
    "p99.9 needs 3,688 requests in each window, and is shown only there.",
)
MEANINGS: Mapping[str, Meaning] = {
    "cores": Meaning(
        "the CPUs of victim, antagonist and load, and what the first two have in common",
        "a core each still leaves caches, memory bus, disk and kernel to be shared, and these no CPU limit divides",
        "https://docs.kernel.org/admin-guide/cgroup-v2.html#cpuset",
    ),
    "limits": Meaning(
        "the limits that the kernel holds the antagonist to",
        "what is limited cannot be taken from a neighbour, and what is not can",
        "https://docs.kernel.org/admin-guide/cgroup-v2.html",
    ),
    "pressure": Meaning(
        "whose waiting for CPU, memory and I/O the kernel tells",
        "of the whole host it counts the antagonist's own waiting as well as the victim's",
        "https://docs.kernel.org/accounting/psi.html",
    ),
    "antagonist": Meaning(
        "what the antagonist had and how it ended, by its own word",
        "an antagonist that had less than elsewhere is no fair one",
        "https://docs.kernel.org/admin-guide/cgroup-v2.html",
    ),
    "drift": Meaning(
        "whether the victim was as fast after the antagonist as before",
        "where it was not, something else changed as well, or the antagonist's effect outlasts it",
        "https://docs.kernel.org/accounting/psi.html",
    ),
}

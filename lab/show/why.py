"""What happens until each phase of a launch, and why it takes its time: for those who watch one for the first time.

What a phase is, is defined in docs/method.md, rule 1, and told in the words of docs/glossary.md, which a test holds to
be these; why is said here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lab.timeline import Phase


@dataclass(frozen=True, slots=True)
class Why:
    """What the instant is, and what the time before it goes into."""

    what: str
    why: str


WHY: Mapping[Phase, Why] = {
    Phase.REQUESTED: Why(
        "just before the first engine call of the launch.",
        "Everything is counted from here, on one clock, for every target alike.",
    ),
    Phase.CREATED: Why(
        "the engine has acknowledged the object.",
        "The engine has written down what is to run: names, limits, a network, a writable layer over the image.",
    ),
    Phase.SCHEDULED: Why(
        "an orchestrator has given it a node.",
        "Somebody had to decide where it runs. With one node that is still a round trip through the control plane.",
    ),
    Phase.POD_IP: Why(
        "it has an address there.",
        "A sandbox and a network namespace were made, and a plugin was called to connect it.",
    ),
    Phase.STARTED: Why(
        "the engine says that it runs.",
        "Its word, and not the service's: it may come after the service has already begun, or long before it answers.",
    ),
    Phase.ENGINE_READY: Why(
        "the orchestrator says that it is ready; `ready` is the client's word.",
        "A probe has succeeded, and that was told by the node, stored, and told on. Probes have a clock of their own.",
    ),
    Phase.KERNEL: Why(
        "the first output of a guest's own kernel.",
        "A machine was made: the VMM started, gave it memory and devices, and firmware or a boot stub loaded a kernel.",
    ),
    Phase.INIT: Why(
        "the guest's first user-space process runs.",
        "The guest's kernel set up memory, CPUs and drivers, looked for devices, and unpacked its first file system.",
    ),
    Phase.USERSPACE: Why(
        "a whole guest's systemd wrote its first line to the console.",
        "The boot loader, the kernel and the initramfs are behind it; from here on services start.",
    ),
    Phase.MAIN: Why(
        "the first instruction of the service's `main`.",
        "Of a process: fork, exec, limits. Of a container: namespaces, cgroups, mounts and the runtime's own start. In "
        "a guest: what its init did before it started the service.",
    ),
    Phase.LISTENING: Why(
        "the service's `listen()` has returned.",
        "The service's own start. The lab's is small; of a large framework this is often the longest part.",
    ),
    Phase.READY: Why(
        "the client holds the first complete answer of this launch.",
        "A connection, a request and an answer, through whatever stands between: a bridge, a proxy, a guest's network. "
        "This is the end that a user waits for.",
    ),
    Phase.SSHD: Why(
        "a whole guest's systemd says on the console that sshd is up.",
        "Keys may have been made first, and the network waited for.",
    ),
    Phase.LOGIN: Why(
        "the first command by SSH has answered; it is asked for once, when the console has said that it may be.",
        "A key exchange, a login and a shell.",
    ),
    Phase.SETTLED: Why(
        "a whole guest's systemd says that its boot is finished, perhaps after `ready`.",
        "Whatever else the distribution starts.",
    ),
    Phase.STOP_REQUESTED: Why(
        "just before the engine is asked to stop the instance.", "The way back begins; it is in no boot time."
    ),
    Phase.STOPPED: Why(
        "the engine says that it has ended.",
        "The service got its signal and ended; a service that does not hear it costs the engine's whole patience.",
    ),
    Phase.DELETED: Why(
        "the engine says that it is removed, and a look at the host confirms it.",
        "Mounts, networks, cgroups and files are taken down.",
    ),
}

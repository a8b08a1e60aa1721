"""The connection to libvirt: opening it, its event loop, and the one place where its errors become the lab's."""

from __future__ import annotations

import atexit
import contextlib
import grp
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivers.libvirt.kernels.architecture import X86_64, Architecture
from drivers.libvirt.xml import parsed
from lab.errors import DriverError, DriverUnavailable, LaunchError, Unsupported

if TYPE_CHECKING:
    import libvirt

SYSTEM_URI, SESSION_URI = "qemu:///system", "qemu:///session"
_GROUP = "libvirt"
"""Whose members the system's libvirt lets in, by polkit's rules of Debian, Ubuntu and Fedora."""
_BROKEN = (
    "NO_CONNECT", "INVALID_CONN", "RPC", "AUTH_CANCELLED", "AUTH_FAILED", "AUTH_UNAVAILABLE", "ACCESS_DENIED",
    "OPERATION_DENIED", "NO_SERVER", "NO_CLIENT", "GNUTLS_ERROR", "LIBSSH", "SSH", "UNKNOWN_HOST", "DBUS_SERVICE",
)  # fmt: skip
_UNSUPPORTED = (
    "NO_SUPPORT", "CONFIG_UNSUPPORTED", "OPERATION_UNSUPPORTED", "ARGUMENT_UNSUPPORTED", "CPU_INCOMPATIBLE", "OS_TYPE",
    "NO_KERNEL", "NO_SECURITY_MODEL",
)  # fmt: skip
_loop_lock = threading.Lock()
_loop: threading.Thread | None = None


def sdk() -> Any:
    """The libvirt module, with its event loop running and its printing of errors off. Raises DriverUnavailable."""
    global _loop  # noqa: PLW0603  libvirt's event loop is the process's
    try:
        import libvirt
        import lxml.etree  # noqa: F401  with it, or there are no domains to be made
    except ImportError as error:
        raise DriverUnavailable(
            f"the Python package {'lxml' if error.name == 'lxml' else 'libvirt-python'} is not installed",
            details=str(error),
            resolution="pip install 'stratalab[libvirt]'",
        ) from error
    with _loop_lock:
        if _loop is None:
            libvirt.registerErrorHandler(lambda _context, _error: None, None)
            libvirt.virEventRegisterDefaultImpl()
            # A timer that does nothing, since an empty loop would sleep for good and never see the first connection.
            timer = libvirt.virEventAddTimeout(1000, lambda _timer, _opaque: None, None)
            ending = threading.Event()
            _loop = threading.Thread(target=_run_loop, args=(libvirt, ending), name="libvirt events", daemon=True)
            _loop.start()
            atexit.register(_end_loop, libvirt, ending, timer, _loop)
    return libvirt


def _run_loop(libvirt: Any, ending: threading.Event) -> None:
    while not ending.is_set():
        libvirt.virEventRunDefaultImpl()


def _end_loop(libvirt: Any, ending: threading.Event, timer: int, loop: threading.Thread) -> None:
    """Before the interpreter goes: a callback that comes after it has gone is a segmentation fault."""
    ending.set()
    libvirt.virEventUpdateTimeout(timer, 0)
    loop.join(5)


def connect(uri: str) -> libvirt.virConnect:
    """Open `uri`; where it is empty, the system's libvirt for root and members of its group, else the user's own.

    Which one is decided before it is tried: a daemon that is down must not look like one without domains, and asking
    without being in the group may open a password dialogue. Raises DriverUnavailable.
    """
    libvirt = sdk()
    wanted = uri or (SYSTEM_URI if _may_use_system() else SESSION_URI)
    try:
        connection = libvirt.open(wanted)
    except libvirt.libvirtError as error:
        raise DriverUnavailable(
            f"libvirt does not answer at {wanted}: {_last_line(error)}",
            details=str(error.get_error_message()),
            resolution=start_command(),
        ) from error
    with contextlib.suppress(libvirt.libvirtError):  # a connection without a daemon has no keep-alive
        connection.setKeepAlive(5, 3)
    return connection


def _may_use_system() -> bool:
    if os.geteuid() == 0:
        return True
    try:
        return grp.getgrnam(_GROUP).gr_gid in (os.getegid(), *os.getgroups())
    except KeyError:
        return False  # this system's libvirt has no such group


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn libvirt's exceptions within the block into the lab's."""
    libvirt = sdk()
    try:
        yield
    except libvirt.libvirtError as error:
        raise translate(error, doing) from error


def translate(error: libvirt.libvirtError, doing: str) -> DriverError:
    """The lab's error for libvirt's `error`, met while `doing` ("start the domain").

    A broken or refused connection is DriverUnavailable, what this libvirt or QEMU cannot do Unsupported, all else
    LaunchError; the codes are virErrorNumber's (libvirt/virterror.h).
    """
    import libvirt

    code, text = error.get_error_code(), str(error.get_error_message() or error)
    line = _last_line(error)
    if code in _codes(libvirt, _BROKEN) or error.get_error_domain() == libvirt.VIR_FROM_RPC:
        return DriverUnavailable(
            f"libvirt does not answer: {line}", details=f"while trying to {doing}: {text}", resolution=start_command()
        )
    if code in _codes(libvirt, _UNSUPPORTED):
        return Unsupported(f"this libvirt or QEMU cannot {doing}: {line}", details=text)
    return LaunchError(f"libvirt could not {doing}: {line}", details=text)


def _codes(libvirt: Any, names: tuple[str, ...]) -> set[int]:
    """The error numbers of `names` that this version of libvirt has."""
    return {getattr(libvirt, f"VIR_ERR_{name}") for name in names if hasattr(libvirt, f"VIR_ERR_{name}")}


def is_missing(error: libvirt.libvirtError) -> bool:
    """Whether `error` says that the domain, or its labels, are not there."""
    import libvirt

    return error.get_error_code() in _codes(libvirt, ("NO_DOMAIN", "NO_DOMAIN_METADATA"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulator:
    """The QEMU that libvirt uses for a machine; `machine` is the versioned name (`pc-q35-7.2`)."""

    path: Path
    version: str
    machine: str
    kvm: bool


def find_emulator(connection: libvirt.virConnect, machine: str, architecture: Architecture = X86_64) -> Emulator:
    """What libvirt says of QEMU and `machine`, of `architecture`. Raises DriverUnavailable where it has neither."""
    libvirt = sdk()

    def capabilities(accel: str) -> Any:
        return parsed(connection.getDomainCapabilities(None, architecture.name, machine, accel, 0))

    try:
        version = dotted(connection.getVersion())
        said = capabilities("qemu")
    except libvirt.libvirtError as error:
        mapped = translate(error, f"find QEMU's machine {machine}")
        if isinstance(mapped, DriverUnavailable):
            raise mapped from error
        raise DriverUnavailable(
            f"libvirt finds no QEMU with the machine {machine} ({architecture.name})",
            details=mapped.details,
            resolution=f"sudo apt-get install {architecture.qemu_package}",
        ) from error
    try:
        kvm = capabilities("kvm").findtext("domain") == "kvm"
    except libvirt.libvirtError:
        kvm = False  # libvirt refuses the question where it cannot use KVM
    return Emulator(
        path=Path(said.findtext("path")), version=version, machine=said.findtext("machine") or machine, kvm=kvm
    )


def dotted(version: int) -> str:
    """libvirt's version numbers: 1,000,000 * major + 1,000 * minor + release."""
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"


def start_command() -> str:
    """The command that starts the daemon on this host: by systemd where that runs, by hand elsewhere."""
    daemon = next(filter(_find_program, ("libvirtd", "virtqemud")), None)
    if daemon is None:
        return "sudo apt-get install libvirt-daemon-system qemu-system-x86"
    if Path("/run/systemd/system").is_dir():
        return f"sudo systemctl start {daemon}"
    return f"sudo virtlogd -d; sudo {daemon} -d"


def _find_program(name: str) -> str | None:
    """Daemons lie where an ordinary user's PATH does not lead."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")


def _last_line(error: libvirt.libvirtError) -> str:
    """The end of libvirt's message: where QEMU has spoken, its own last words."""
    lines = str(error.get_error_message() or error).strip().splitlines()
    return lines[-1] if lines else "libvirt gave no message"

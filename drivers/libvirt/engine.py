"""The connection to libvirt: opening it, its event loop, and the one place where its errors become the lab's."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivers.libvirt.xml import parsed
from lab.errors import DriverError, DriverUnavailable, LaunchError, Unsupported

if TYPE_CHECKING:
    import libvirt

SYSTEM_URI, SESSION_URI = "qemu:///system", "qemu:///session"
_SYSTEM_SOCKETS = (Path("/run/libvirt/libvirt-sock"), Path("/run/libvirt/virtqemud-sock"))
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
            _loop = threading.Thread(target=_run_loop, args=(libvirt,), name="libvirt events", daemon=True)
            _loop.start()
    return libvirt


def _run_loop(libvirt: Any) -> None:
    # A timer that does nothing, since an empty loop would sleep for good and never see the first connection.
    libvirt.virEventAddTimeout(1000, lambda _timer, _opaque: None, None)
    while True:
        libvirt.virEventRunDefaultImpl()


def connect(uri: str) -> libvirt.virConnect:
    """Open `uri`, or where it is empty the system's libvirt, else the user's own. Raises DriverUnavailable."""
    libvirt = sdk()
    wanted = (uri,) if uri else (SYSTEM_URI, SESSION_URI) if os.geteuid() else (SYSTEM_URI,)
    first: DriverUnavailable | None = None
    for candidate in wanted:
        try:
            connection = libvirt.open(candidate)
        except libvirt.libvirtError as error:
            first = first or _unreachable(candidate, error)
            continue
        with contextlib.suppress(libvirt.libvirtError):  # a connection without a daemon has no keep-alive
            connection.setKeepAlive(5, 3)
        return connection
    raise first or DriverUnavailable("libvirt gave no connection")


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
    line = text.strip().splitlines()[-1] if text.strip() else "libvirt gave no message"
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


def find_emulator(connection: libvirt.virConnect, machine: str) -> Emulator:
    """What libvirt says of QEMU and `machine`. Raises DriverUnavailable where it has neither."""
    libvirt = sdk()

    def capabilities(accel: str) -> Any:
        return parsed(connection.getDomainCapabilities(None, "x86_64", machine, accel, 0))

    try:
        version = dotted(connection.getVersion())
        said = capabilities("qemu")
    except libvirt.libvirtError as error:
        mapped = translate(error, f"find QEMU's machine {machine}")
        if isinstance(mapped, DriverUnavailable):
            raise mapped from error
        raise DriverUnavailable(
            f"libvirt finds no QEMU with the machine {machine}",
            details=mapped.details,
            resolution="sudo apt-get install qemu-system-x86",
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
    if not shutil.which("libvirtd") and not shutil.which("virtqemud"):
        return "sudo apt-get install libvirt-daemon-system qemu-system-x86"
    daemon = "libvirtd" if shutil.which("libvirtd") else "virtqemud"
    if Path("/run/systemd/system").is_dir():
        return f"sudo systemctl start {daemon}"
    return f"sudo virtlogd -d; sudo {daemon} -d"


def _unreachable(uri: str, error: libvirt.libvirtError) -> DriverUnavailable:
    text = str(error.get_error_message() or error)
    sockets = [path for path in _SYSTEM_SOCKETS if path.exists()]
    if uri == SYSTEM_URI and any(not os.access(path, os.W_OK) for path in sockets):
        return DriverUnavailable(
            "this user may not use the system's libvirt",
            details=text,
            resolution='sudo usermod -aG libvirt "$USER", and log in again',
        )
    return DriverUnavailable(f"libvirt does not answer at {uri}", details=text, resolution=start_command())

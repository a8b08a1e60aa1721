"""Private tracing instances of this host's kernel (Documentation/trace/ftrace.rst, 'Instances').

An instance has buffers, events, options and a clock of its own: nothing outside it is changed, and with its directory
all of it goes. (Before Linux 6.7 the first event that anybody enables also gives the host's own buffer its usual size.)
Its name carries its labels, so that it is known from the call on that makes it whose it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lab.driver import bears
from lab.errors import CleanupError, MeasurementError, Unsupported
from lab.host.cgroup import labels_of, name_of
from lab.host.procfs import read_link, read_mounts, read_text
from lab.host.tracing.pages import BORN, CALL, EXEC, FORK, FUNCTION, STACK, Pages
from lab.host.tracing.traces import Symbols, Trace
from lab.units import MIB

KIND = "tracing instance"
GROUPS = frozenset(
    {"avc", "block", "bridge", "cgroup", "compaction", "csd", "dma_fence", "error_report", "exceptions"}
    | {"btrfs", "erofs", "ext4", "f2fs", "fuse", "iomap", "jbd2", "nfs4", "xfs", "overlayfs", "9p"}
    | {"fib", "fib6", "napi", "neigh", "net", "netlink", "page_pool", "qdisc", "skb", "sock", "tcp", "udp", "vsock"}
    | {"filelock", "filemap", "fs_dax", "huge_memory", "hugetlbfs", "kmem", "migrate", "mmap"}
    | {"oom", "page_isolation", "pagemap", "percpu", "readahead", "swiotlb", "thp", "vmalloc"}
    | {"vmscan", "writeback", "wbt", "kyber", "iocost", "bpf_trace", "io_uring", "kvm", "kvmmmu", "vhost", "xdp"}
    | {"module", "namei", "notifier", "printk", "raw_syscalls", "sched", "signal", "task", "workqueue"}
)
"""The groups of tracepoints whose stacks are taken, where this kernel has them: what a task's own calls lead to. Those
of clocks, timers, interrupts and power are left out: they fire on whosever time it is."""

_ALWAYS = (CALL, FORK, EXEC, BORN)
_LEFT_OUT = (
    *(f"kmem/{name}" for name in ("rss_stat", "mm_page_alloc_zone_locked", "mm_page_free_batched", "kfree")),
    *(f"sched/{name}" for name in ("sched_stat_runtime", "sched_wakeup")),
    *("raw_syscalls/sys_exit", "block/block_touch_buffer", "block/block_dirty_buffer"),
)
"""The most frequent ones, whose stacks tell next to nothing beside those of the events around them."""
_OPTIONS = {"overwrite": "1", **dict.fromkeys(("userstacktrace", "func_stack_trace", "func-args", "event-fork"), "0")}
"""What the buffers hold depends on these: a new instance has the options of the host's own."""
_MOUNTED = Path("/sys/kernel/tracing")
_REMEDY = "run the lab as root, after: mount -t tracefs nodev /sys/kernel/tracing"
_FSOPEN, _FSCONFIG, _FSMOUNT, _FSCONFIG_CREATE, _CLOEXEC = 430, 431, 432, 6, 1  # the same on all architectures
_OWN_PIDS, _HOSTS_PIDS = Path("/proc/self/ns/pid"), "pid:[4026531836]"  # PROC_PID_INIT_INO of linux/proc_ns.h
_SWITCH = Path("/proc/sys/kernel/ftrace_enabled")
_NO_ROOM = (errno.ENOMEM, errno.EINVAL)
_LOCKED = " (and without lockdown: cat /sys/kernel/security/lockdown)"
_LOSSES = ("overrun", "commit overrun", "dropped events")


class Method(StrEnum):
    """How the functions that the kernel ran are known: `FUNCTION` is ftrace's function tracer, which tells each;
    `STACKS` are those that were under way at some tracepoint, a lower bound."""

    FUNCTION = "function"
    STACKS = "stacks"


@contextlib.contextmanager
def tracefs() -> Iterator[Path]:
    """The kernel's tracing directory: where it is mounted, else by a mount that no directory shows and that ends with
    this process (fsmount(2)). Raises Unsupported."""
    mounted = [mount.point for mount in read_mounts(Path("/")) if mount.type == "tracefs"]
    if mounted:
        yield _MOUNTED if str(_MOUNTED) in mounted else Path(mounted[0])
        return
    fd = _detached_mount()
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def require_tracing() -> None:
    """Raises Unsupported, with the remedy, where this user cannot make tracing instances, or could not tell whose the
    events are: the trace has the process ids of the host's own namespace."""
    if read_link(_OWN_PIDS) != _HOSTS_PIDS:
        raise Unsupported(
            "the lab does not see the process ids of the host's own namespace, which the kernel's trace has",
            resolution="run the lab on the host itself, or in a container with --pid=host",
        )
    try:
        with tracefs() as root:
            list((root / "instances").iterdir())
        Symbols.now()
    except OSError as error:
        raise Unsupported(f"the kernel's tracing cannot be used: {error.strerror}", resolution=_REMEDY) from error


@dataclass(frozen=True, slots=True)
class Tracing:
    """A tracing instance that watches the whole system while `on`; made by `tracing`."""

    path: Path
    method: Method
    groups: Sequence[str]
    pages: Pages

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Trace, from empty buffers, until the context is left."""
        (self.path / "trace").write_text("")
        _write(self.path / "tracing_on", "1")
        try:
            yield
        finally:
            _write(self.path / "tracing_on", "0")

    def read(self) -> Trace:
        """What was traced, which is then no longer there. Raises MeasurementError where the kernel lost any of it."""
        cpus = sorted((self.path / "per_cpu").iterdir())
        for cpu in cpus:
            refuse_losses(cpu.name, (cpu / "stats").read_text())
        seen = Trace()
        for cpu in cpus:
            for page in _pages(cpu / "trace_pipe_raw", self.pages.page_bytes):
                self.pages.read(page, seen)
        return seen


@contextlib.contextmanager
def tracing(labels: Mapping[str, str], *, buffer_bytes: int) -> Iterator[Tracing]:
    """A tracing instance that bears `labels`, with `buffer_bytes` of buffers in all, by the best method that this host
    allows; removed at the end. Raises Unsupported, CleanupError."""
    with tracefs() as root:
        path = root / "instances" / name_of(labels)
        try:
            path.mkdir()
        except OSError as error:
            raise Unsupported(
                f"this kernel lets no private tracing instance be made: {error.strerror}", resolution=_REMEDY
            ) from error
        try:
            yield _made_ready(root, path, buffer_bytes)
        finally:
            TraceInstance(path.name, labels).delete()


@dataclass(frozen=True, slots=True)
class TraceInstance:
    """A tracing instance of the lab's, as a leftover; `id` is its name in tracefs."""

    id: str
    labels: Mapping[str, str]
    kind: str = KIND

    def delete(self, *, timeout_s: float = 10.0) -> None:
        """Remove it, and with it its buffers and settings; it is busy while a reader has it open."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                with tracefs() as root:
                    (root / "instances" / self.id).rmdir()
            except FileNotFoundError:
                return
            except (OSError, Unsupported) as error:
                if getattr(error, "errno", 0) == errno.EBUSY and time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                raise CleanupError(
                    f"the tracing instance {self.id} cannot be removed: {error}",
                    resolution=f"as root: rmdir '{_MOUNTED}/instances/{self.id}'",
                ) from error
            else:
                return


def trace_instances(labels: Mapping[str, str]) -> Sequence[TraceInstance]:
    """The lab's tracing instances that bear `labels`; none where this user may not see them."""
    try:
        with tracefs() as root:
            names = sorted(path.name for path in (root / "instances").iterdir())
    except (Unsupported, OSError):  # it may make none either
        return []
    return [TraceInstance(name, own) for name in names if bears(own := labels_of(name), labels)]


def refuse_losses(cpu: str, stats: str) -> None:
    """Raises MeasurementError where `stats`, a per_cpu/cpuN/stats, tells of lost events."""
    told = dict(line.partition(": ")[::2] for line in stats.splitlines())
    lost = {name: int(told.get(name, "0")) for name in _LOSSES}
    if any(lost.values()):
        words = ", ".join(f"{name} {count}" for name, count in lost.items() if count)
        raise MeasurementError(
            f"the kernel's trace lost events on {cpu} ({words})",
            resolution="give --param buffer=N with more MiB, or a shorter --param window",
        )


def _made_ready(root: Path, path: Path, buffer_bytes: int) -> Tracing:
    try:
        return _set_up(root, path, buffer_bytes)
    except OSError as error:
        raise Unsupported(
            f"the tracing instance cannot be set up with {buffer_bytes // MIB} MiB of buffers: {error.strerror}",
            resolution="give another --param buffer=N, in MiB" if error.errno in _NO_ROOM else _REMEDY + _LOCKED,
        ) from error


def _set_up(root: Path, path: Path, buffer_bytes: int) -> Tracing:
    _write(path / "tracing_on", "0")
    for name, value in _OPTIONS.items():
        if (path / "options" / name).exists():
            _write(path / "options" / name, value)
    missing = [name for name in _ALWAYS if not (path / "events" / name).exists()]
    if missing:
        raise Unsupported(f"this kernel has no tracepoint {', '.join(missing)}", resolution="use another kernel")
    cpus = len(list((path / "per_cpu").iterdir()))
    _write(path / "buffer_size_kb", str(max(64, buffer_bytes // 1024 // cpus)))
    method = _method(path)
    groups: list[str] = []
    if method is Method.STACKS:
        _write(path / "options" / "stacktrace", "1")
        groups = sorted(GROUPS & {found.name for found in (path / "events").iterdir()})
    for name in groups:
        _write(path / "events" / name / "enable", "1")
    for name in _LEFT_OUT:
        if (path / "events" / name).exists():
            _write(path / "events" / name / "enable", "0")
    for name in _ALWAYS:
        _write(path / "events" / name / "enable", "1")
    events = root / "events"
    wanted = (*_ALWAYS, FUNCTION if method is Method.FUNCTION else STACK)
    formats = {name: (events / name / "format").read_text() for name in wanted}
    return Tracing(path, method, tuple(groups), Pages((events / "header_page").read_text(), formats))


def _pages(path: Path, page_bytes: int) -> Iterator[bytes]:
    """What the buffer of one CPU holds: each read takes a page out of it."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while page := os.read(fd, page_bytes):
            yield page
    except BlockingIOError:
        return  # it is empty
    finally:
        os.close(fd)


def _method(path: Path) -> Method:
    """The function tracer needs CONFIG_FUNCTION_TRACER, and may be refused all the same; where it is switched off for
    the whole host, it can be set and tells nothing (admin-guide/sysctl/kernel.rst, 'ftrace_enabled')."""
    if read_text(_SWITCH) == "0":
        return Method.STACKS
    try:
        _write(path / "current_tracer", "function")
    except OSError:
        return Method.STACKS
    return Method.FUNCTION


def _write(path: Path, text: str) -> None:
    """Unlike a buffered file, this raises the kernel's refusal here and now."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _detached_mount() -> int:
    """A descriptor of tracefs' root, mounted nowhere. Raises Unsupported."""
    libc = ctypes.CDLL(None, use_errno=True)
    opened = libc.syscall(_FSOPEN, b"tracefs", _CLOEXEC)
    if opened < 0:
        raise Unsupported(f"tracefs cannot be had: {os.strerror(ctypes.get_errno())}", resolution=_REMEDY)
    try:
        created = libc.syscall(_FSCONFIG, opened, _FSCONFIG_CREATE, None, None, 0)
        mounted: int = libc.syscall(_FSMOUNT, opened, _CLOEXEC, 0) if created == 0 else created
        if mounted < 0:
            raise Unsupported(f"tracefs cannot be had: {os.strerror(ctypes.get_errno())}", resolution=_REMEDY)
        return mounted
    finally:
        os.close(opened)

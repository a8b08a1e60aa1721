"""What only libvirt does: real guests on each machine, a foreign image's root disk, a QEMU that is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import drivers.libvirt as libvirt_driver
from drivers.libvirt import LibvirtDriver
from lab.driver import Context, Mark
from lab.errors import CleanupError, DriverError, DriverUnavailable, LaunchError
from lab.features import Role
from lab.host.procs import Process
from lab.launch.session import Session
from lab.service.ask import get
from lab.spec import Endpoint, Spec
from lab.timeline import Phase, Source, SystemClock, Timeline
from lab.units import MIB

pytestmark = [pytest.mark.engine("libvirt"), pytest.mark.timeout(300)]
VARIANTS = ("microvm", "microvm-lean", "q35", "pc")
READY_S = 120
SYSTEM_SOCKETS = (Path("/run/libvirt/libvirt-sock"), Path("/run/libvirt/virtqemud-sock"))

MakeContext = Callable[..., Context]
Until = Callable[..., object]


@pytest.fixture
def make_driver(make_context: MakeContext) -> Iterator[Callable[..., LibvirtDriver]]:
    with contextlib.ExitStack() as closing:

        def make(variant: str = "", **options: str) -> LibvirtDriver:
            driver = LibvirtDriver(variant, make_context(**options))
            closing.callback(driver.close)
            return driver

        yield make


@contextlib.contextmanager
def launched(driver: LibvirtDriver, spec: Spec) -> Iterator[Session]:
    driver.prepare(spec)
    with Session(driver, driver.info(), spec.for_launch(), SystemClock(), timeout_s=READY_S) as session:
        session.launch()
        yield session


def listening(pid: int) -> list[tuple[str, int]]:
    """The TCP and UDP sockets that `pid` has bound, as (address in hex, port)."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            target = str(link.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and (fields[3] == "0A" or table.startswith("udp")):
                address, port = fields[1].split(":")
                found.append((address, int(port, 16)))
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_guest_boots_serves_and_is_gone(
    variant: str, make_driver: Callable[..., LibvirtDriver], labels: dict[str, str], until: Until
) -> None:
    driver = make_driver(variant)
    with launched(driver, Spec(labels=labels)) as session:
        timeline: Timeline = session.timeline
        order = [Phase.REQUESTED, Phase.KERNEL, Phase.INIT, Phase.MAIN, Phase.LISTENING, Phase.READY]
        instants = [timeline.mark(phase).ns for phase in order]
        assert instants == sorted(instants)
        assert Phase.CREATED not in timeline
        until(
            lambda: {mark.source for mark in timeline if mark.phase is Phase.STARTED} == {Source.RETURN, Source.EVENT}
        )
        assert timeline.mark(Phase.KERNEL).ns > timeline.mark(Phase.REQUESTED).ns
        assert b"Linux version" in session.instance.logs()

        facts = get(session, "/facts")
        assert facts["cpus_online"] == 1
        memory = int(str(facts["memory_total"]).split()[0]) * 1024
        assert 64 * MIB < memory < 128 * MIB
        assert facts["boot_id"] != Path("/proc/sys/kernel/random/boot_id").read_text().strip()

        pids = session.instance.host_pids()
        assert list(pids.values()) == [Role.VMM]
        (pid,) = pids
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        assert b"size=131072k" in words[words.index(b"-m") + 1] or words[words.index(b"-m") + 1] == b"128"
        bound = listening(pid)
        assert bound == [("0100007F", session.instance.endpoint.port)]

        folder = next(driver._context.run_dir.glob(f"lab-{variant}-*"))
        session.stop(timeout_s=30)
        assert Process.of(pid) is None, "a stopped guest's QEMU has ended"
        until(lambda: b"lab-guest exit 0" in session.instance.logs())  # else it was destroyed and not asked
        session.delete()
        assert Process.of(pid) is None
        assert not folder.exists()
        assert not driver.list_instances({"lab.run": labels["lab.run"]})


def test_a_lean_guests_own_kernel_says_what_it_leaves_out_and_unknown_words_change_nothing(
    make_driver: Callable[..., LibvirtDriver], labels: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The self-tests, which no variant runs, among them."""
    asked = libvirt_driver.command_line

    def all_told(*given: object, **how: object) -> str:
        words = asked(*given, **how).replace("loglevel=6", "loglevel=7")  # type: ignore[arg-type]
        words = words.replace("initcall_blacklist=", "initcall_blacklist=no_such_call,")
        return f"no_such_module.option=1 no_such_option {words}"

    monkeypatch.setattr(libvirt_driver, "command_line", all_told)
    driver = make_driver("microvm-lean")
    with launched(driver, Spec(labels=labels)) as session:
        said = session.instance.logs().decode(errors="replace")
        assert "no_such_option" in said and "no_such_call" in said
        assert "alg: self-tests disabled" in said
        assert "self-tests for CTR-KDF" not in said
        assert "IPv6: Loaded, but administratively disabled" in said
        assert "heap alloc:off" in said
        # What the same kernel says at this level where it is there, as one look at libvirt:microvm shows.
        for word in ("audit: initializing netlink", "AppArmor initialized", "Loaded X.509 cert", "ima: ", "kprobes: "):
            assert word not in said
        assert "module verification failed" in said, "its modules are not signed"
        for what, word in (("tracing", "IPv6"), ("zeroing", "certificates")):
            assert {what, word} <= set(" ".join(driver.info().facts["left_out"]).replace(",", "").split())


def test_a_killed_qemu_is_seen_and_deleted(make_driver: Callable[..., LibvirtDriver], labels: dict[str, str]) -> None:
    driver = make_driver("q35")
    with launched(driver, Spec(labels=labels)) as session:
        (pid,) = session.instance.host_pids()
        os.kill(pid, signal.SIGKILL)
        session.stop(timeout_s=30)
        assert not driver.list_instances({"lab.run": labels["lab.run"]})
        session.delete()
        assert session.instance.host_pids() == {}
    assert not list(driver._context.run_dir.glob("lab-q35-*"))


def test_a_fraction_of_a_cpu_is_a_quota_of_the_whole_process(
    make_driver: Callable[..., LibvirtDriver], labels: dict[str, str]
) -> None:
    driver = make_driver("q35")
    if "quota" not in str(driver.info().facts["cpu_limit"]):
        return  # told as a fact; the machines without it are the ones whose cgroups are not libvirt's
    with launched(driver, Spec(labels=labels, cpus=1.5)) as session:
        assert get(session, "/facts")["cpus_online"] == 2
        (pid,) = session.instance.host_pids()
        assert _quotas(pid) >= {150_000}


def test_info_names_each_limit_and_the_one_that_is_not_set(make_driver: Callable[..., LibvirtDriver]) -> None:
    limits = make_driver("q35").info().facts["limits"]
    assert set(limits) == {"memory", "swap", "cpus", "pids"}
    assert [name for name, how in limits.items() if how.startswith("not set: ")] == ["pids"]


def test_no_other_user_can_read_a_guests_files_and_what_a_cold_launch_reads_is_there(
    make_driver: Callable[..., LibvirtDriver], labels: dict[str, str]
) -> None:
    driver = make_driver("microvm")
    with launched(driver, Spec(labels=labels, environment={"SECRET": "for the guest alone"})) as session:
        found = [path for path in driver._context.run_dir.glob("*/*") if not path.is_dir()]
        assert {"kernel", "initramfs", "console.in"} <= {path.name.split("-")[0] for path in found}
        assert {path.name: path.stat().st_mode & 0o077 for path in found} == {path.name: 0 for path in found}

        files = driver.launch_files(session.spec)
        assert all(path.exists() for path in files)
        (pid,) = session.instance.host_pids()
        assert Path(f"/proc/{pid}/exe").resolve() in [path.resolve() for path in files]
        assert any(path.is_dir() and list(path.glob("*bios*")) for path in files), "the firmware"
        name = f"lab-microvm-{session.instance.id[:13]}"
        assert name not in driver.others_running(), "the lab's own guests are no others"
        session.delete()
    owners = {path.stat().st_uid for path in driver._context.run_dir.glob("libvirt/*")}
    assert owners == {os.getuid()}, "libvirt gave them back"


def _quotas(pid: int) -> set[int]:
    """Every CPU quota above the process, in µs per 100,000, of either version of cgroups."""
    found = set()
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = [f"/sys/fs/cgroup/{controllers}", "/sys/fs/cgroup/cpu"] if controllers else ["/sys/fs/cgroup"]
        for mount in mounts:
            here = Path(mount + path)
            for folder in (here, *here.parents):
                for name in ("cpu.cfs_quota_us", "cpu.max"):
                    with contextlib.suppress(OSError, ValueError):
                        found.add(int((folder / name).read_text().split()[0]))
    return found


def test_a_second_process_finds_stops_and_removes_a_guest(
    make_context: MakeContext, labels: dict[str, str], until: Until
) -> None:
    context = make_context()
    with (
        contextlib.closing(LibvirtDriver("microvm", context)) as driver,
        launched(driver, Spec(labels=labels)) as session,
    ):
        with contextlib.closing(LibvirtDriver("q35", context)) as another:
            (found,) = another.list_instances({"lab.run": labels["lab.run"]})
            assert found.endpoint == session.instance.endpoint
            assert found.host_pids() == session.instance.host_pids()
            found.stop(timeout_s=30)
            until(lambda: b"lab-guest exit 0" in session.instance.logs())
            found.delete()
            found.delete()
        assert not list(context.run_dir.glob("lab-microvm-*"))


class Silent:
    """A Mark that keeps what it is told."""

    def __init__(self) -> None:
        self.marks: list[Phase] = []
        self.failure: DriverError | None = None
        self.lines: list[bytes] = []

    def __call__(self, phase: Phase, *, source: Source) -> None:
        self.marks.append(phase)

    def line(self, text: bytes, *, source: Source) -> None:
        self.lines.append(text)

    def moment(self) -> Mark:
        return self

    def failed(self, error: DriverError) -> None:
        self.failure = error


def test_a_qemu_that_ends_at_once_is_told_in_its_own_words(
    make_driver: Callable[..., LibvirtDriver], labels: dict[str, str], until: Until
) -> None:
    driver = make_driver("q35")
    spec = Spec(labels=labels)
    driver.prepare(spec)
    before = set(threading.enumerate())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LaunchError) as raised:
            driver.launch(spec.for_launch(), Endpoint("127.0.0.1", port), Silent())
    assert str(port) in raised.value.brief and "\n" not in raised.value.brief
    assert not driver.list_instances({"lab.run": labels["lab.run"]})
    assert not list(driver._context.run_dir.glob("lab-q35-*"))
    until(lambda: set(threading.enumerate()) <= before)


def test_an_interrupted_launch_leaves_no_domain(
    make_driver: Callable[..., LibvirtDriver], labels: dict[str, str]
) -> None:
    class Interrupted(Silent):
        def __call__(self, phase: Phase, *, source: Source) -> None:
            if source is Source.RETURN:
                raise KeyboardInterrupt

    driver = make_driver("q35")
    spec = Spec(labels=labels)
    driver.prepare(spec)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = Endpoint("127.0.0.1", free.getsockname()[1])
    with pytest.raises(KeyboardInterrupt):
        driver.launch(spec.for_launch(), endpoint, Interrupted())
    assert not driver.list_instances({"lab.run": labels["lab.run"]})
    assert not list(driver._context.run_dir.glob("lab-q35-*"))


def test_a_guest_whose_program_ends_fails_its_launch_at_once(
    make_driver: Callable[..., LibvirtDriver], labels: dict[str, str], until: Until
) -> None:
    driver = make_driver("microvm")
    spec = Spec(labels=labels, command=("/no-such-program",))
    driver.prepare(spec)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = Endpoint("127.0.0.1", free.getsockname()[1])
    mark = Silent()
    instance = driver.launch(spec.for_launch(), endpoint, mark)
    try:
        until(lambda: mark.failure, timeout_s=READY_S)
        assert isinstance(mark.failure, LaunchError) and "ended with exit status 2" in mark.failure.brief
        until(lambda: not driver.list_instances({"lab.run": labels["lab.run"]}))
        until(lambda: b"lab-guest exit 2" in instance.logs())
    finally:
        instance.delete()


def test_kvm_forced_where_it_is_not_proven_is_refused_with_the_reason(
    make_driver: Callable[..., LibvirtDriver],
) -> None:
    info = make_driver("q35").info()
    forced = make_driver("q35", accel="kvm")
    if info.facts["kvm_proven"]:
        assert forced.info().qualifiers == {"accel": "kvm"}
    else:
        with pytest.raises(DriverUnavailable) as raised:
            forced.info()
        # It was asked anew, and that answer is the one that is kept.
        assert str(make_driver("q35").info().facts["kvm_reason"]) in raised.value.brief
    assert make_driver("q35", accel="tcg").info().qualifiers == {"accel": "tcg"}


def test_a_daemon_that_does_not_answer_is_one_clear_line(
    make_driver: Callable[..., LibvirtDriver], tmp_path: Path
) -> None:
    driver = make_driver("q35", **{"libvirt-uri": f"qemu+unix:///system?socket={tmp_path}/none"})
    for ask in (driver.info, lambda: driver.list_instances({})):
        with pytest.raises(DriverUnavailable) as raised:
            ask()
        assert "libvirt" in raised.value.brief and "\n" not in raised.value.brief
        assert raised.value.resolution


class Gate:
    """A door before libvirt's own socket, that can be shut as if the daemon had died, and opened again."""

    def __init__(self, path: Path, behind: Path) -> None:
        self.path, self._behind = path, behind
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None

    def open(self) -> None:
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        assert self._listener is not None
        for connection in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._open.clear()
        self.path.unlink(missing_ok=True)

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                front, _ = listener.accept()
            except OSError:
                return
            back = socket.socket(socket.AF_UNIX)
            back.connect(str(self._behind))
            self._open += [front, back]
            for source, target in ((front, back), (back, front)):
                threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)


def test_a_daemon_that_stops_in_the_middle_gives_clear_lines_and_is_found_again(
    make_driver: Callable[..., LibvirtDriver], labels: dict[str, str], tmp_path: Path
) -> None:
    behind = next((path for path in SYSTEM_SOCKETS if os.access(path, os.W_OK)), None)
    if behind is None:
        return  # this user has a libvirt of its own, started and ended by the library itself
    gate = Gate(tmp_path / "gate", behind)
    gate.open()
    driver = make_driver("microvm", **{"libvirt-uri": f"qemu+unix:///system?socket={gate.path}"})
    with launched(driver, Spec(labels=labels)) as session:
        gate.shut()
        calls: dict[str, tuple[type[Exception], Callable[[], object]]] = {
            "info": (DriverUnavailable, driver.info),
            "list": (DriverUnavailable, lambda: driver.list_instances({})),
            "launch": (
                DriverUnavailable,
                lambda: driver.launch(session.spec.for_launch(), session.instance.endpoint, Silent()),
            ),
            "stop": (DriverUnavailable, lambda: session.instance.stop(timeout_s=5)),
            "delete": (CleanupError, session.instance.delete),
        }
        for name, (kind, call) in calls.items():
            with pytest.raises(kind) as raised:
                call()
            assert isinstance(raised.value, DriverError)
            assert "libvirt" in raised.value.brief and "\n" not in raised.value.brief, name
        assert get(session, "/facts")["cpus_online"] == 1, "the guest does not care"
        gate.open()
        assert [found.id for found in driver.list_instances({"lab.run": labels["lab.run"]})] == [session.instance.id]
        session.stop(timeout_s=30)
        session.delete()
    assert not list(driver._context.run_dir.glob("lab-microvm-*"))
    gate.shut()


def test_labels_of_any_text_come_back_as_they_were_and_the_default_is_q35(
    make_driver: Callable[..., LibvirtDriver], labels: dict[str, str]
) -> None:
    driver = make_driver()
    assert driver.info() == make_driver("q35").info()
    hostile = {**labels, "lab.note": '</metadata><x a="\'">&amp;]]>\n é'}
    with launched(driver, Spec(labels=hostile)) as session:
        (pid,) = session.instance.host_pids()
        assert b"q35" in Path(f"/proc/{pid}/cmdline").read_bytes()
        (found,) = driver.list_instances({"lab.run": labels["lab.run"]})
        assert dict(found.labels) == dict(session.spec.labels)

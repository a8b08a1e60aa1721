import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.errors import BadInput, MeasurementError, Unsupported
from lab.host import cold
from lab.host.cold import (
    ColdReport,
    KeptMapped,
    Residency,
    cold_label,
    evict,
    make_cold,
    require_cold,
    residency,
)
from lab.host.procfs import mount_of, read_mounts

PAGE = mmap.PAGESIZE
PAGES = 1000
MAP = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
sum(view[offset] for offset in range(0, len(view), mmap.PAGESIZE))
print("mapped", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def disk() -> Iterator[Path]:
    """A directory on a disk: /tmp is memory on many machines."""
    mounts = read_mounts(Path("/"))
    for place in (Path("/var/tmp"), Path(__file__).parent, Path.home()):
        mount = mount_of(place.resolve(), mounts)
        if mount and mount.type in ("ext4", "xfs", "btrfs", "ext3", "f2fs") and os.access(place, os.W_OK):
            break
    else:
        pytest.skip("no directory that can be written to lies on a disk")
    with tempfile.TemporaryDirectory(prefix="stratalab-test-", dir=place) as made:
        yield Path(made)


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A root whose drop_caches drops nothing, and in whose /proc no process is."""
    (tmp_path / "proc/sys/vm").mkdir(parents=True)
    (tmp_path / "proc/sys/vm/drop_caches").write_text("")
    (tmp_path / "proc/self").mkdir()
    shutil.copyfile("/proc/self/mountinfo", tmp_path / "proc/self/mountinfo")
    return tmp_path


@pytest.fixture
def mapper() -> Iterator[Callable[[Path], int]]:
    """Start a process that maps a file and touches every page of it; gives its pid."""
    started: list[subprocess.Popen[str]] = []

    def start(path: Path) -> int:
        process = subprocess.Popen(
            [sys.executable, "-c", MAP, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "mapped\n"
        return process.pid

    yield start
    for process in started:
        process.communicate("\n", timeout=30)


def fill(path: Path, pages: int = PAGES) -> Path:
    path.write_bytes(os.urandom(pages * PAGE - 1))
    path.read_bytes()
    return path


def told(report: ColdReport) -> set[Path]:
    return {file.path for file in report.files}


def test_what_was_read_is_resident_and_then_cold(disk: Path, fake: Path) -> None:
    path = fill(disk / "layer")
    assert residency(path) == Residency(path, PAGES, PAGES)
    report = make_cold([path], root=fake)
    assert report.kept_mapped_by == ()
    assert [(file.path, file.total_pages, file.cold) for file in report.files] == [(path, PAGES, True)]
    after = residency(path)
    assert after is not None
    assert after.cold
    assert (fake / "proc/sys/vm/drop_caches").read_text() == "3\n"
    with path.open("rb") as file:
        file.seek(500 * PAGE)
        file.read(1)
    assert residency(path) != after  # it reads the truth, and not what it wished for


@pytest.mark.alone
@pytest.mark.skipif(os.geteuid() != 0, reason="dropping the caches needs root")
def test_the_caches_of_this_machine_are_dropped(disk: Path, mapper: Callable[[Path], int]) -> None:
    require_cold()
    free, mapped = fill(disk / "free"), fill(disk / "mapped")
    pid = mapper(mapped)
    report = make_cold([disk])
    assert told(report) == {free, mapped}
    assert [file.path for file in report.files if file.cold] == [free]
    assert [(kept.path, kept.pid) for kept in report.kept_mapped_by] == [(mapped, pid)]


def test_a_file_that_a_process_keeps_mapped_is_listed(disk: Path, fake: Path, mapper: Callable[[Path], int]) -> None:
    path, other = fill(disk / "daemon"), fill(disk / "other")
    pid = mapper(path)
    (fake / "proc" / str(pid)).symlink_to(f"/proc/{pid}")
    report = make_cold([path, other], root=fake)
    comm = Path(f"/proc/{pid}/comm").read_text().strip()
    assert report.kept_mapped_by == (KeptMapped(path, pid, comm),)
    assert {file.path: file.cold for file in report.files} == {path: False, other: True}
    assert report.to_json() == {
        "page_bytes": PAGE,
        "files": 2,
        "total_pages": 2 * PAGES,
        "resident_pages": sum(file.resident_pages for file in report.files),
        "warm": [{"path": str(path), "resident_pages": PAGES, "total_pages": PAGES}],
        "kept_mapped_by": [{"path": str(path), "pid": pid, "comm": comm}],
    }


def test_a_warm_file_without_an_excuse_is_an_error(disk: Path, fake: Path) -> None:
    path, other = fill(disk / "warm"), fill(disk / "other")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        assert sum(view[offset] for offset in range(0, len(view), PAGE)) > 0
        with pytest.raises(MeasurementError, match=r"^not cold: .+/warm stays in memory \(") as caught:
            make_cold([path, other], attempts=2, root=fake)  # this process is not in the fake /proc
    assert f"{path}: {PAGES} of {PAGES} pages resident" in caught.value.details
    assert caught.value.resolution
    assert make_cold([path], root=fake).files[0].cold  # and now that the mapping is gone, it is not


def test_a_file_in_memory_can_never_be_cold(fake: Path) -> None:
    mount = mount_of(Path("/dev/shm"), read_mounts(Path("/")))
    if mount is None or mount.type != "tmpfs" or not os.access("/dev/shm", os.W_OK):
        pytest.skip("/dev/shm is no tmpfs that can be written to")
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(b"x" * PAGE * 3)
        file.flush()
        with pytest.raises(MeasurementError) as caught:
            make_cold([Path(file.name)], attempts=1, root=fake)
    assert "3 of 3 pages resident (tmpfs)" in caught.value.details
    assert caught.value.resolution == "move what lies in tmpfs to a disk"


def test_directories_are_walked_and_each_file_is_looked_at_once(disk: Path, fake: Path, tmp_path: Path) -> None:
    tree, outside = disk / "tree", fill(disk / "outside", 1)
    (tree / "deep").mkdir(parents=True)
    first, second = fill(tree / "first", 3), fill(tree / "deep" / "second", 2)
    (tree / "deep" / "first-again").hardlink_to(first)
    (tree / "link").symlink_to(outside)
    (tree / "empty").touch()
    os.mkfifo(tree / "pipe")
    report = make_cold([tree, second, tree / "deep"], root=fake)
    assert len(report.files) == 2
    assert {file.total_pages for file in report.files} == {2, 3}
    assert second in told(report)
    assert told(make_cold([tree / "link"], root=fake)) == {outside}  # a link that was named is followed
    assert make_cold([], root=fake) == ColdReport((), ())


def test_a_large_file_is_counted_in_parts(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fill(disk / "image", 100)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # no reading ahead
        for page in (0, 31, 32, 99):
            os.pread(file.fileno(), 1, page * PAGE)
    assert residency(path) == Residency(path, 4, 100)
    monkeypatch.setattr(cold, "_CHUNK_BYTES", 32 * PAGE)
    assert residency(path) == Residency(path, 4, 100)


@pytest.mark.parametrize(
    ("resident", "total", "is_cold"), [(0, 1, True), (1, 99, False), (1, 100, True), (10, 999, False), (0, 0, True)]
)
def test_cold_is_at_most_one_percent(resident: int, total: int, is_cold: bool) -> None:
    assert Residency(Path("x"), resident, total).cold is is_cold


def test_a_file_that_is_gone_has_no_residency(tmp_path: Path) -> None:
    assert residency(tmp_path / "gone") is None


def test_a_path_that_is_not_there_is_bad_input(tmp_path: Path, fake: Path) -> None:
    with pytest.raises(BadInput, match="gone"):
        make_cold([tmp_path / "gone"], root=fake)


def test_what_cannot_be_mapped_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="cannot be told"):
        residency(Path("/sys/devices/system/cpu/online"))


def test_a_system_without_drop_caches_is_unsupported(tmp_path: Path) -> None:
    with pytest.raises(Unsupported) as caught:
        require_cold(tmp_path)
    assert caught.value.resolution


def test_without_root_it_says_so() -> None:
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(BadInput, match="needs root") as caught:
            require_cold()
    finally:
        if root:
            os.seteuid(0)
    assert "sudo" in caught.value.resolution


@pytest.mark.parametrize(
    ("virtual", "label"), [(False, "cold"), (True, "cold-guest-cache"), (None, "cold-guest-cache")]
)
def test_only_a_physical_machine_is_called_cold(virtual: bool | None, label: str) -> None:
    assert cold_label({"virtualization": {"hypervisor": virtual}}) == label


def test_without_facts_the_weaker_name_is_given() -> None:
    assert cold_label({}) == "cold-guest-cache"


def test_a_file_that_was_just_written_is_evicted_alone(disk: Path) -> None:
    written, other = disk / "written", disk / "other"
    for path in (written, other):
        path.write_bytes(os.urandom(PAGES * PAGE))
    evict([written])
    told = [residency(path) for path in (written, other)]
    assert told[0] is not None and told[0].cold
    assert told[1] is not None and not told[1].cold

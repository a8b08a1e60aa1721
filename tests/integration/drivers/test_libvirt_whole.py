"""What a lab leaves that was killed while its whole guest boots: found by its labels, and removed. (All that needs a
booted one is asked by the contract, of one that is shared.)"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from drivers.libvirt import LibvirtDriver
from lab.driver import Context
from lab.errors import DriverUnavailable, Unsupported
from lab.launch.waiter import reserve_port
from lab.spec import Spec

MakeContext = Callable[..., Context]

_LAB = """
import sys
from pathlib import Path
from drivers.libvirt import LibvirtDriver
from lab.driver import Context
from lab.spec import Endpoint, Spec

class Mark:
    def __call__(self, *_, **__): ...
    def line(self, *_, **__): ...
    def failed(self, error): raise error
    def moment(self): return self

labels = dict(word.split("=", 1) for word in sys.argv[4:])
driver = LibvirtDriver("debian", Context(run_dir=Path(sys.argv[1]), cache_dir=Path(sys.argv[2])))
driver.launch(Spec(labels=labels).for_launch(), Endpoint("127.0.0.1", int(sys.argv[3])), Mark())
print("launched", flush=True)
sys.stdin.read()
"""


@pytest.mark.engine("libvirt:debian")
@pytest.mark.whole(first=True)
def test_a_lab_that_is_killed_leaves_a_guest_that_its_labels_find(
    make_context: MakeContext, labels: dict[str, str]
) -> None:
    context = make_context()
    words = [
        str(context.run_dir),
        str(context.cache_dir),
        str(reserve_port()),
        *(f"{k}={v}" for k, v in labels.items()),
    ]
    with subprocess.Popen(
        [sys.executable, "-c", _LAB, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as lab:
        assert lab.stdout is not None
        assert lab.stdout.readline() == "launched\n"
        os.kill(lab.pid, signal.SIGKILL)
    with contextlib.closing(LibvirtDriver("debian", context)) as driver:
        (found,) = driver.list_instances({"lab.run": labels["lab.run"]})
        folder = context.run_dir / found.name  # type: ignore[attr-defined]
        held = sorted(path.name for path in folder.iterdir())
        assert held == ["console.in", "console.out", "initramfs", "root.qcow2"]
        assert all(oct(path.stat().st_mode & 0o077) == "0o0" for path in folder.iterdir()), "secrets, all of them"
        secrets = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in found.host_pids()]  # type: ignore[attr-defined]
        assert secrets and b"PRIVATE" not in secrets[0] and b"LAB_NONCE" not in secrets[0]
        found.stop(timeout_s=0.1)
        found.delete()
        assert not driver.list_instances({"lab.run": labels["lab.run"]})
        assert not folder.exists()


@pytest.mark.engine("libvirt:debian")
@pytest.mark.whole(first=True)
def test_an_image_of_containers_is_refused_with_the_target_that_boots_it(
    make_context: MakeContext, labels: dict[str, str]
) -> None:
    driver = LibvirtDriver("debian", make_context())
    with contextlib.closing(driver), pytest.raises(Unsupported, match="libvirt:q35"):
        driver.prepare(Spec(labels=labels, image="some/image"))


@pytest.mark.engine("libvirt")
def test_without_an_image_it_is_not_there_and_says_what_builds_one(make_context: MakeContext, tmp_path: Path) -> None:
    context = make_context()
    (tmp_path / "cache").mkdir()
    empty = Context(run_dir=context.run_dir, cache_dir=tmp_path / "cache")
    for variant in ("debian", "debian-cloud"):
        with contextlib.closing(LibvirtDriver(variant, empty)) as driver:
            with pytest.raises(DriverUnavailable) as raised:
                driver.info()
            assert raised.value.resolution == "lab guest build --suite bookworm"

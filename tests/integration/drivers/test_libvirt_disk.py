"""A disk image that boots by itself, as a user brings it: with a boot loader of its own, and a service of its own."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Callable
from pathlib import Path

import bootable_disk
import pytest

from drivers.libvirt import LibvirtDriver
from drivers.libvirt.instance import LibvirtInstance
from drivers.libvirt.whole.building import build
from drivers.libvirt.whole.images import built
from drivers.libvirt.whole.kept import sha256_of
from lab.driver import Context, Info
from lab.launch.session import Session
from lab.spec import OWN_IMAGE, Spec
from lab.store.place import cache_dir
from lab.timeline import Phase, SystemClock
from lab.units import MIB

pytestmark = [pytest.mark.engine("libvirt"), pytest.mark.whole(first=True), pytest.mark.timeout(900)]


def test_it_boots_by_its_own_loader_answers_and_hears_of_its_power_button(
    make_context: Callable[..., Context], labels: dict[str, str], tmp_path: Path
) -> None:
    if absent := bootable_disk.missing():
        pytest.fail(f"not here: {', '.join(absent)}; vagrant/provision.sh --tests installs it")
    build(cache_dir(), "bookworm", say=print)
    disk = tmp_path / "disk.qcow2"
    bootable_disk.write_bootable(built(cache_dir(), "bookworm"), disk)
    before = hashlib.sha256(disk.read_bytes()).hexdigest()
    context = make_context(**{"guest-image": str(disk), "sha256": before})
    driver = LibvirtDriver("disk", context)
    try:
        spec = Spec(image=OWN_IMAGE, port=8080, ready_path="/index.html", memory_bytes=512 * MIB, labels=labels)
        driver.prepare(spec)
        info = driver.info()
        with Session(driver, info, spec.for_launch(), SystemClock(), timeout_s=600) as session:
            session.launch()
            _serves_and_stops(session, driver, info)
        assert driver.list_instances(session.spec.labels) == []
    finally:
        driver.close()
    kept = context.cache_dir / "guests" / f"brought-{before}"
    assert sha256_of(kept / "disk.qcow2") == before
    for path in kept.iterdir():
        path.unlink()
    kept.rmdir()


def _serves_and_stops(session: Session, driver: LibvirtDriver, info: Info) -> None:
    instance = session.instance
    assert isinstance(instance, LibvirtInstance) and instance.endpoint is not None
    connection = http.client.HTTPConnection(instance.endpoint.host, instance.endpoint.port, timeout=60)
    connection.request("GET", "/index.html")
    assert connection.getresponse().read() == bootable_disk.ANSWER
    connection.close()
    assert Phase.KERNEL in session.timeline and Phase.MAIN not in session.timeline
    assert info.facts["firmware"] == "BIOS (SeaBIOS)" and info.facts["guest_image"]["format"] == "qcow2"
    (found,) = driver.list_instances(session.spec.labels)
    assert found.id == instance.id
    instance.stop(timeout_s=300)
    assert not instance.was_killed()

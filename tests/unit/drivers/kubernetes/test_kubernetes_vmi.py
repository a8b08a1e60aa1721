"""A virtual machine as a pod, on a cluster that has KubeVirt, and on one that has not."""

from __future__ import annotations

from typing import Any

import pytest

from drivers.kubernetes.objects.vmi import acceleration
from lab.cli.options import read_options
from lab.errors import BadInput, DriverUnavailable
from lab.features import Feature
from lab.spec import OWN_IMAGE, Spec
from lab.units import MIB
from tests.unit.drivers.kubernetes.test_kubernetes_driver import LABELS, Make, launched, make

__all__ = ["make"]  # a fixture
DISK = "registry.example/disks/web:1"


def spec(**changes: Any) -> Spec:
    return Spec(labels=LABELS, image=OWN_IMAGE, port=80, ready_path="/", memory_bytes=512 * MIB, **changes)


def test_a_machine_boots_the_disk_that_is_named_and_is_reached_through_its_pod(make: Make, stub: Any) -> None:
    stub.kubevirt = True
    driver = make("vmi", vmi_image=DISK)
    info = driver.info()
    assert info.isolation == "virtual machine (KubeVirt), in a pod"
    assert {Feature.OWN_SERVICE, Feature.NETWORK} <= info.features
    assert not {Feature.EXEC, Feature.PEERS, Feature.REPLICAS, Feature.PINNING} & info.features
    assert info.qualifiers["accel"] == "tcg"
    assert info.qualifiers["route"] == "node-port"
    with launched(driver, spec(cpus=1.5)) as session:
        (made,) = stub.listed("virtualmachineinstances")
        domain = made["spec"]["domain"]
        assert made["spec"]["volumes"][0]["containerDisk"]["image"] == DISK
        assert (domain["cpu"]["cores"], domain["memory"]["guest"]) == (2, str(512 * MIB))
        assert domain["resources"]["limits"]["cpu"] == "1500m"
        (pod,) = stub.listed("pods")
        (service,) = stub.listed("services")
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        (found,) = make("vmi", vmi_image=DISK).list_instances({"lab.run": "r1"})
        assert session.instance is not None and found.id == session.instance.id
        session.stop()
        assert not stub.listed("pods")
    assert not stub.listed("virtualmachineinstances") and not stub.listed("services")


def test_a_cluster_without_kubevirt_is_told_so_and_its_other_targets_are_listed(make: Make, stub: Any) -> None:
    with pytest.raises(DriverUnavailable, match=r"no KubeVirt: it knows no kubevirt\.io/v1"):
        make("vmi", vmi_image=DISK).info()
    driver = make()
    driver.prepare(Spec(labels=LABELS))
    assert list(driver.list_instances({})) == []
    assert [left.kind for left in driver.leftovers({})] == ["namespace"]


def test_a_machine_without_a_disk_names_what_is_missing(make: Make, stub: Any) -> None:
    stub.kubevirt = True
    with pytest.raises(BadInput, match="boots a disk") as raised:
        make("vmi").info()
    assert "vmi-image=REFERENCE" in raised.value.resolution


def test_a_disk_of_yours_may_be_ready_by_its_port() -> None:
    given = {"targets": ["kubernetes:vmi"], "ready": "tcp", "driver_options": [f"vmi-image={DISK}"]}
    assert read_options(given, None).driver_options == {"vmi-image": DISK}


@pytest.mark.parametrize(
    ("counts", "told"), [(["110", "1k"], "kvm"), (["0", "0"], "tcg"), (["0", "110"], ""), ([], "")]
)
def test_kvm_is_what_the_nodes_say_that_they_have(counts: list[str], told: str) -> None:
    nodes = [{"status": {"allocatable": {"devices.kubevirt.io/kvm": count}}} for count in counts]
    assert acceleration(nodes) == told

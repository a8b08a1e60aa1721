"""What a pod can be part of: a Job, and a RuntimeClass's; and what is no variant."""

from __future__ import annotations

from typing import Any

import pytest

from drivers.kubernetes.objects.shapes import Shape, Variant
from lab.errors import BadInput, Unsupported
from lab.features import Execs, Feature
from lab.spec import Target
from tests.unit.drivers.kubernetes.test_kubernetes_driver import Make, launched, make, spec

__all__ = ["make"]  # a fixture


@pytest.mark.parametrize(
    ("text", "shape", "runtime_class"),
    [
        ("", Shape.POD, ""),
        ("job", Shape.JOB, ""),
        ("runtimeclass=kata-qemu.io", Shape.POD, "kata-qemu.io"),
        ("deployment+runtimeclass=gvisor", Shape.DEPLOYMENT, "gvisor"),
    ],
)
def test_a_variant_names_an_object_and_a_runtime_class(text: str, shape: Shape, runtime_class: str) -> None:
    target = Target.parse(f"kubernetes:{text}" if text else "kubernetes")
    assert str(target) == (f"kubernetes:{text}" if text else "kubernetes")
    assert Variant.parse(target.variant) == Variant(shape=shape, runtime_class=runtime_class)


@pytest.mark.parametrize("text", ["kata", "runtimeclass=", "runtimeclass=A", "job+", "+job", "runtimeclass=-x"])
def test_what_is_no_variant_names_the_way_to_write_a_runtime_class(text: str) -> None:
    with pytest.raises(Unsupported, match="no variant") as raised:
        Variant.parse(text)
    assert "runtimeclass=NAME" in raised.value.resolution


def test_a_target_that_is_none_is_refused_all_the_same() -> None:
    for text in ("kubernetes:=x", "kubernetes:a b", "=", "kubernetes:"):
        with pytest.raises(BadInput):
            Target.parse(text)


def test_a_job_serves_is_found_stopped_and_goes_with_its_pod(make: Make, stub: Any) -> None:
    driver = make("job")
    info = driver.info()
    assert "OnFailure" in info.facts["restart"]["default"]
    assert Feature.REPLICAS not in info.features
    with launched(driver) as session:
        (made,) = stub.listed("jobs")
        (pod,) = stub.listed("pods")
        assert made["spec"]["template"]["spec"]["restartPolicy"] == "OnFailure"
        assert pod["metadata"]["labels"]["stratalab/instance"] == made["metadata"]["name"]
        assert session.instance is not None and isinstance(session.instance, Execs)
        (found,) = make("job").list_instances({"lab.run": "r1"})
        assert found.id == session.instance.id
        session.stop()
        assert stub.listed("jobs")[0]["spec"]["suspend"] is True
        assert not stub.listed("pods")
    assert not stub.listed("jobs")


def test_a_job_that_is_refused_leaves_nothing(make: Make, stub: Any) -> None:
    driver = make("job")
    driver.prepare(spec())
    stub.refuse("POST", "/jobs", 403, 'jobs.batch is forbidden: User "dev" cannot create resource "jobs"')
    with pytest.raises(Exception, match="forbids to create the job"), launched(driver):
        pass
    assert not stub.listed("jobs") and not stub.listed("pods")


def test_a_deployment_has_a_runtime_class_too(make: Make, stub: Any) -> None:
    stub.add("runtimeclasses", {"metadata": {"name": "kata"}, "handler": "kata"})
    driver = make("deployment+runtimeclass=kata")
    assert driver.info().isolation == "virtual machine (Kata Containers)"
    with launched(driver):
        assert stub.listed("pods")[0]["spec"]["runtimeClassName"] == "kata"

"""A pod's /tmp: the lab's own scratch space only where the image has nothing there."""

from __future__ import annotations

from dataclasses import replace

from drivers.kubernetes.objects import manifests
from drivers.kubernetes.objects.manifests import Form
from lab.spec import Spec

FORM = Form(image="docker.io/x:1", pull_policy="Never", security={})
SPEC = Spec(image="x:1", labels={"lab.run": "r", "lab.launch": "l"}, scratch_bytes=0)


def test_scratch_space_hides_nothing_of_the_images_and_is_always_limited() -> None:
    spec = manifests.pod(SPEC, FORM)["spec"]
    assert spec["containers"][0]["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]
    assert spec["volumes"] == [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "4096"}}]
    for made in (
        manifests.pod(SPEC, replace(FORM, own_tmp=True)),
        manifests.deployment(SPEC, replace(FORM, own_tmp=True)),
    ):
        spec = made["spec"].get("template", made)["spec"]
        assert not spec["containers"][0]["volumeMounts"] and "volumes" not in spec

"""What an engine's containers find around them: what is asked of the engine, and what its answers mean."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from drivers.dockerapi.surroundings import Tmp, scratch_mount, seccomp, tmp_of, ulimits
from lab.host.rlimits import UNLIMITED
from lab.spec import Spec

DIRECTORY, STICKY, LINK = 1 << 31, 1 << 20, 1 << 27  # Go's os.FileMode


class Engine:
    """An engine with one image, whose /tmp is as told; None where it has none."""

    def __init__(
        self, names: list[str] | None, *, mode: int = DIRECTORY | STICKY | 0o777, volumes: Any = None, link: str = ""
    ) -> None:
        self.names, self.mode, self.volumes, self.link = names, mode, volumes, link
        self.containers: dict[str, dict[str, str]] = {}
        self.made = 0

    def inspect_image(self, _: str) -> dict[str, Any]:
        return {"Config": {"Volumes": self.volumes}}

    def create_container(self, _: str, *, command: list[str], labels: dict[str, str], **__: Any) -> dict[str, str]:
        assert command, "an image may name no program, and no container is made without one"
        self.made += 1
        self.containers["c"] = labels
        return {"Id": "c"}

    def remove_container(self, container: str, *, v: bool, force: bool) -> None:
        assert v and force
        del self.containers[container]

    def get_archive(self, container: str, path: str) -> tuple[Iterator[bytes], dict[str, Any]]:
        import docker.errors

        assert self.containers[container]["lab.launch"], "a look that dies is found by its label"
        if self.names is None:
            raise docker.errors.NotFound("no such path")
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as tar:
            for name in ["tmp/", *(f"tmp/{name}" for name in self.names)]:
                info = tarfile.TarInfo(name)
                info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
                tar.addfile(info)
        data = made.getvalue()
        return (data[at : at + 700] for at in range(0, len(data), 700)), {"mode": self.mode, "linkTarget": self.link}


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        (Engine(None), Tmp.NOTHING),
        (Engine([]), Tmp.NOTHING),
        (Engine([], mode=DIRECTORY | 0o755), Tmp.CLOSED),
        (Engine([], link="/tmp", mode=DIRECTORY | 0o755), Tmp.CLOSED),  # as Podman tells of what is no link
        (Engine(["app"]), Tmp.OWN),
        (Engine(["d/"]), Tmp.OWN),
        (Engine([], link="/var/tmp", mode=LINK | 0o777), Tmp.OWN),
        (Engine([], mode=0o644), Tmp.OWN),
        (Engine([], volumes={"/tmp": {}}), Tmp.OWN),
        (Engine([], volumes={"/tmp/cache/": {}}), Tmp.OWN),
        (Engine([], volumes={"/data": {}}), Tmp.NOTHING),
    ],
)
def test_the_engine_is_asked_what_its_image_has_and_keeps_nothing(engine: Engine, expected: Tmp) -> None:
    assert tmp_of(engine, "i", Spec(image="i", labels={"lab.run": "r"})) is expected
    assert not engine.containers


def test_the_labs_own_image_is_known() -> None:
    engine = Engine(["app"])
    assert tmp_of(engine, "i", Spec()) is Tmp.NOTHING and not engine.made


def test_limits_and_scratch_in_the_apis_words() -> None:
    assert ulimits({"core": (0, UNLIMITED)}) == [{"Name": "core", "Soft": 0, "Hard": -1}]
    options = scratch_mount(Spec(scratch_bytes=0))["VolumeOptions"]["DriverConfig"]["Options"]["o"].split(",")
    assert "size=4096" in options and "mode=1777" in options and "noexec" not in options  # size=0 would be no limit


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["name=apparmor", "name=seccomp,profile=default"], "the engine's profile 'default'"),
        (["name=seccomp,profile=/etc/own.json"], "the engine's profile '/etc/own.json'"),
        (["name=apparmor"], "no filter"),
        (None, "no filter"),
    ],
)
def test_the_seccomp_profile_is_the_engines(options: list[str] | None, expected: str) -> None:
    assert seccomp({"SecurityOptions": options}) == expected

"""What an image's process is to a guest's init."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lab.errors import BadInput
from lab.host.rlimits import UNLIMITED
from lab.image.process import RESOLV_CONF, Process
from lab.service.guest_config import MAX_VOLUMES, GuestConfig

PROCESS = Process(
    argv=("./app",),
    environment={"A": "1"},
    cwd="/srv",
    uid=1,
    gid=2,
    groups=(2, 3),
    stop_signal=37,
    volumes=("/data", "/srv/x"),
)


def encoded(process: Process, scratch_bytes: int = 8192) -> list[tuple[str, str]]:
    config = GuestConfig.of(process, scratch_bytes=scratch_bytes, rlimits={"core": (0, UNLIMITED)})
    words = config.encode().decode().split("\0")[:-1]
    return list(zip(words[::2], words[1::2], strict=True))


def test_all_that_the_image_says_reaches_the_guest() -> None:
    told = encoded(PROCESS)
    assert [value for key, value in told if key == "volume"] == ["/data", "/srv/x"]
    assert {
        ("stop_signal", "37"),
        ("scratch_bytes", "8192"),
        ("told_hostname", "1"),
        ("rlimit", f"4:0:{2**64 - 1}"),
        ("resolv_conf", RESOLV_CONF),
    } <= set(told)


def test_scratch_space_hides_nothing_and_is_always_limited() -> None:
    assert "scratch_bytes" not in dict(encoded(replace(PROCESS, own_tmp=True)))
    assert dict(encoded(PROCESS, scratch_bytes=0))["scratch_bytes"] == "4096"  # 0 would be no limit


@pytest.mark.parametrize("changed", [{"told_hostname": False}, {"environment": {"HOSTNAME": "x"}}])
def test_a_guest_is_not_told_its_name_twice_or_against_the_image(changed: dict[str, Any]) -> None:
    assert dict(encoded(replace(PROCESS, **changed)))["told_hostname"] == "0"


def test_more_volumes_than_a_guest_can_be_told_are_refused() -> None:
    with pytest.raises(BadInput, match="volumes are too long"):
        encoded(replace(PROCESS, volumes=tuple(f"/v{n}" for n in range(MAX_VOLUMES))))

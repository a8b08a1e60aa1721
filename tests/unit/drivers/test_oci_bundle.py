"""What a bare OCI runtime is given and what is made of what it says, without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drivers.oci.bundle import CAPABILITIES, Kernel, allowed_capabilities, config
from drivers.oci.instance import Record
from drivers.oci.runtime import Container, find
from lab.errors import DriverUnavailable
from lab.host import cgroup
from lab.host.rlimits import UNLIMITED
from lab.image.process import Process
from lab.spec import Spec
from lab.units import MIB

ALL = frozenset({"memory", "swap", "cpus", "pids"})
LABELS = {"lab.run": "r1", "lab.launch": "abc", "lab.owner": "m:b:1:2"}


def _config(
    *,
    uid: int = 0,
    limits: frozenset[str] = ALL,
    unified: bool = False,
    own: bool = False,
    cpuset: tuple[int, ...] = (),
    own_tmp: bool = False,
    told_hostname: bool = True,
) -> dict[str, Any]:
    spec = Spec(labels=LABELS, cpus=0.5, memory_bytes=64 * MIB, pids=9, scratch_bytes=0, cpuset=cpuset)
    process = Process(
        argv=("/x", "y"),
        environment={"A": "b=c"},
        cwd="/w",
        uid=uid,
        gid=7,
        groups=(7, 8),
        own_tmp=own_tmp,
        told_hostname=told_hostname,
    )
    kernel = Kernel(unified=unified, limits=limits, capabilities=list(CAPABILITIES))
    return config(
        spec,
        process,
        kernel,
        bundle=Path("/b"),
        hostname="h",
        rlimits={"nofile": (1024, 4096), "core": (0, UNLIMITED)},
        cgroups_path="/p",
        own_network=own,
    )


def test_the_labels_are_annotations_of_the_creating_call() -> None:
    assert _config()["annotations"] == LABELS


def test_the_process_is_the_images() -> None:
    process = _config(uid=5)["process"]
    assert process["args"] == ["/x", "y"] and process["cwd"] == "/w"
    assert process["user"] == {"uid": 5, "gid": 7, "additionalGids": [7, 8]}
    assert {"A=b=c", "HOSTNAME=h"} <= set(process["env"])


def test_the_host_name_is_kept_from_an_image_that_does_not_want_it() -> None:
    assert not [entry for entry in _config(told_hostname=False)["process"]["env"] if entry.startswith("HOSTNAME")]


def test_limits_and_the_oom_score_are_never_the_calling_shells() -> None:
    process = _config()["process"]
    assert process["oomScoreAdj"] == 0
    assert process["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1},
    ]


def test_names_are_the_containers_own_and_the_hosts_are_asked_only_in_its_network() -> None:
    def names(told: dict[str, Any]) -> dict[str, str]:
        return {one["destination"]: one["source"] for one in told["mounts"] if one["destination"].startswith("/etc/")}

    assert names(_config()) == {"/etc/hosts": "/b/hosts", "/etc/hostname": "/b/hostname"}
    assert names(_config(own=True)) == {**names(_config()), "/etc/resolv.conf": "/b/resolv.conf"}
    assert "sysctl" not in _config()["linux"]  # it would be the host's
    assert _config(own=True)["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"] == "0"


def test_root_has_dockers_capabilities_and_another_user_none_of_them_at_first() -> None:
    root, other = _config()["process"]["capabilities"], _config(uid=5)["process"]["capabilities"]
    assert set(root["effective"]) == set(root["permitted"]) == set(root["bounding"]) == set(CAPABILITIES)
    assert other["effective"] == other["permitted"] == [] and set(other["bounding"]) == set(CAPABILITIES)
    assert "inheritable" not in root and "ambient" not in root


def test_limits_are_asked_for_where_the_kernel_has_them() -> None:
    resources = _config()["linux"]["resources"]
    assert resources["memory"] == {"limit": 64 * MIB, "swap": 64 * MIB}  # both together: no swap on top
    assert resources["cpu"] == {"quota": 50_000, "period": 100_000}
    assert resources["pids"] == {"limit": 9}
    assert set(_config(limits=frozenset())["linux"]["resources"]) == {"devices"}
    assert "swap" not in _config(limits=frozenset({"memory"}))["linux"]["resources"]["memory"]
    assert "memory" not in _config(limits=frozenset({"swap"}))["linux"]["resources"]


def test_a_container_is_held_to_cpus_also_where_it_has_no_quota() -> None:
    assert _config(cpuset=(2, 0))["linux"]["resources"]["cpu"] == {"quota": 50_000, "period": 100_000, "cpus": "0,2"}
    assert _config(cpuset=(1,), limits=frozenset())["linux"]["resources"]["cpu"] == {"cpus": "1"}


def test_namespaces_are_dockers_but_for_the_network() -> None:
    def kinds(told: dict[str, Any]) -> set[str]:
        return {one["type"] for one in told["linux"]["namespaces"]}

    assert kinds(_config()) == {"mount", "uts", "ipc", "pid"}
    assert kinds(_config(own=True)) - kinds(_config()) == {"network"}
    assert kinds(_config(unified=True)) - kinds(_config()) == {"cgroup"}


def test_scratch_is_limited_also_where_none_is_wanted() -> None:
    (scratch,) = [mount for mount in _config()["mounts"] if mount["destination"] == "/tmp"]
    assert "size=4096" in scratch["options"]  # size=0 would be no limit
    assert "noexec" not in scratch["options"]


def test_scratch_never_hides_what_the_image_has() -> None:
    assert "/tmp" not in {mount["destination"] for mount in _config(own_tmp=True)["mounts"]}


@pytest.mark.parametrize(
    ("bounding", "missing"),
    [
        ("000001ffffffffff", []),
        ("000001fffeffffff", []),  # without CAP_SYS_RESOURCE (24), which Docker does not give either
        ("000001fff7ffdfff", ["CAP_MKNOD", "CAP_NET_RAW"]),
        ("0", list(CAPABILITIES)),
    ],
)
def test_only_what_the_bounding_set_holds_is_asked_for(tmp_path: Path, bounding: str, missing: list[str]) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tx\nCapBnd:\t{bounding}\n")
    held, lacking = allowed_capabilities(status)
    assert lacking == missing
    assert set(held) == set(CAPABILITIES) - set(missing)


def test_the_runtimes_last_error_is_told_on_one_line(tmp_path: Path) -> None:
    container = Container("lab-x", tmp_path)
    assert container.problem() == ""
    lines = [{"level": "warning", "msg": "w"}, {"level": "error", "msg": "first"}, {"level": "error", "msg": "a\n b"}]
    container.log.write_text("\n".join(json.dumps(line) for line in lines))
    assert container.problem() == "a b"
    container.log.write_text("not json")
    assert container.problem() == "not json"
    container.log.write_text(json.dumps({"level": "info", "msg": "fine"}))
    assert container.problem() == ""


def test_a_record_is_read_as_it_was_written_and_else_by_the_bundles_name(tmp_path: Path) -> None:
    bundle = tmp_path / cgroup.name_of(LABELS)
    bundle.mkdir()
    assert Record.read(bundle).labels == LABELS  # the lab died before it wrote any
    record = Record(labels={**LABELS, "x": "y"}, runtime="/r", scratch="/s", host="127.0.0.1", port=1)
    record.write(bundle)
    assert Record.read(bundle) == record
    (bundle / "lab.json").write_text('{"labels": ')  # it died while it wrote
    assert Record.read(bundle).labels == LABELS


def test_a_runtime_is_found_in_the_path_by_name_or_the_first_known_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, remedy in (("", "apt-get install runc"), ("crun", "apt-get install crun"), ("nope", "oci:NAME")):
        with pytest.raises(DriverUnavailable, match=f"no OCI runtime.*{name}") as raised:
            find(name)
        assert remedy in raised.value.resolution
    for name in ("crun", "other"):
        (tmp_path / name).touch(mode=0o755)
    assert find("").name == "crun" and find("other").path == tmp_path / "other"
    (tmp_path / "runc").touch(mode=0o755)
    assert find("").name == "runc"

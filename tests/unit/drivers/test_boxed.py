"""What systemd-nspawn's, LXC's and bubblewrap's drivers share, without any of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drivers import lxc, nspawn
from drivers.barehost import boxed
from drivers.barehost.boxed import Rooms, by_code, described
from lab.errors import LaunchError
from lab.host import cgroup
from lab.image.process import Process
from lab.launch.ends import Ending
from lab.spec import Endpoint, Spec
from lab.units import MIB

SPEC = Spec(labels={"lab.run": "r", "lab.launch": "ab12", "lab.owner": "o"}, memory_bytes=96 * MIB, cpus=0.5, pids=32)


def test_a_process_is_described_word_for_word_whatever_its_environment_holds() -> None:
    process = Process(
        argv=("/run it", "--now", ""), environment={}, cwd="/srv", uid=33, gid=34, groups=(34, 35), stop_signal=15
    )
    text = described(process, {"A": "two\nlines", "LD_PRELOAD": "/evil.so"}, {"nofile": (10, 20)})
    assert text.endswith(b"\0")
    words = text.split(b"\0")[:-1]
    assert words == [
        *(b"33", b"34", b"34,35", b"/srv", b"1", b"7:10:20", b"2"),
        *(b"A=two\nlines", b"LD_PRELOAD=/evil.so", b"/run it", b"--now", b""),
    ]


def test_nothing_of_the_service_is_in_the_tools_own_environment_or_arguments() -> None:
    started = boxed.started(["/bin/sh", "-c", "cat; env"], SPEC, Endpoint("127.0.0.1", 1), b"secret\0")
    assert started.stdout is not None
    with started.stdout as output:
        told = output.read()
    assert started.wait(10) == 0
    assert told.startswith(b"secret\0"), "on standard input alone"
    own = dict(line.split(b"=", 1) for line in told.partition(b"\0")[2].splitlines() if b"=" in line)
    assert json.loads(own[b"LAB_LABELS"]) == dict(SPEC.labels) and own[b"LAB_ENDPOINT"] == b"127.0.0.1:1"
    assert b"HOME" not in own


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        (Ending(status=0), Ending(status=0)),
        (Ending(status=3), Ending(status=3)),
        (Ending(status=137), Ending(signal=9)),
        (Ending(signal=9), Ending(signal=9)),
        (Ending(), Ending()),
    ],
)
def test_a_tools_status_tells_how_the_service_ended(told: Ending, meant: Ending) -> None:
    assert by_code(told) == meant


def test_rooms_are_found_by_their_folders_names_also_where_no_record_was_written(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path / "rooms")
    assert rooms.all() == []
    (tmp_path / "rooms").mkdir()
    (tmp_path / "rooms" / "another's").mkdir()
    half = tmp_path / "rooms" / cgroup.name_of(SPEC.labels)
    half.mkdir()
    (half / "lab.json").write_text("{")
    (found,) = rooms.all()
    assert found.record.labels == dict(SPEC.labels) and found.endpoint is None
    (half / "lab.json").write_text(json.dumps({"labels": {"lab.run": "r"}, "host": "127.0.0.1", "port": 9}))
    assert rooms.all()[0].endpoint == Endpoint("127.0.0.1", 9)


def test_a_room_that_cannot_be_made_is_one_clear_line_and_nothing_stays(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LaunchError, match="root file system cannot be made"):
        Rooms(tmp_path / "file").make(SPEC, Endpoint("127.0.0.1", 9), files=tmp_path, scratch=tmp_path / "scratch")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_lxc_is_told_the_limits_in_the_words_of_each_version_of_cgroups() -> None:
    one = dict.fromkeys(("memory", "swap", "cpus", "pids"), "cgroup v1")
    two = {**dict.fromkeys(("memory", "cpus", "pids"), "cgroup v2"), "swap": "not set: this kernel does not"}
    assert list(lxc._limits(SPEC, one)) == [
        "lxc.cgroup.memory.limit_in_bytes = 100663296",
        "lxc.cgroup.memory.memsw.limit_in_bytes = 100663296",
        "lxc.cgroup.cpu.cfs_period_us = 100000",
        "lxc.cgroup.cpu.cfs_quota_us = 50000",
        "lxc.cgroup.pids.max = 32",
    ]
    assert list(lxc._limits(SPEC, two)) == [
        "lxc.cgroup2.memory.max = 100663296",
        "lxc.cgroup2.cpu.max = 50000 100000",
        "lxc.cgroup2.pids.max = 32",
    ]


def test_lxcs_own_word_that_a_container_runs_and_its_first_error_are_read_from_its_log() -> None:
    log = (
        b'lxc-start c1 20261201.8 NOTICE   start - ../src/lxc/start.c:start:2194 - Exec\'ing "/service"\n'
        b'lxc-start c1 20261201.9 NOTICE   start - ../src/lxc/start.c:post_start:2205 - Started "/s" with pid "81"\n'
    )
    found = lxc._STARTED.search(log)
    assert found and found[1] == b"81"
    failed = (
        "lxc-start c 2026.1 ERROR    network - ../src/lxc/network.c:x:1 - No such device: lxcbr0\n"
        "lxc-start c 2026.2 ERROR    a - b - later"
    )
    assert lxc._first_error(failed) == "No such device: lxcbr0"
    assert lxc._first_error("") == "it told no reason"


def test_neither_tool_is_given_a_network_that_was_not_asked_for(tmp_path: Path) -> None:
    assert "--private-network" not in nspawn._arguments(tmp_path, "m", private=False)
    assert "--private-network" in nspawn._arguments(tmp_path, "m", private=True)
    assert "lxc.net.0.type = none" in lxc._configuration(tmp_path, "m", host=True)
    assert "lxc.net.0.type = empty" in lxc._configuration(tmp_path, "m", host=False)


def test_of_the_capabilities_that_a_tool_leaves_those_beyond_other_engines_are_named() -> None:
    sys_admin, chown = 1 << 21, 1 << 0
    bounding = next(
        line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd")
    )
    expected = ["sys_admin"] if int(bounding, 16) & sys_admin else []
    assert boxed.more_capabilities(sys_admin | chown) == expected

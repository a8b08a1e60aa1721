"""The scenario `surface`: what it makes of the probes of both sides, in words and counted."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from made_process import LINKS, STATUS, make_process

from lab.errors import Unsupported
from lab.features import Feature, Role
from lab.figures import evidence
from lab.figures.evidence import Claims
from lab.figures.series import EXPLAINING
from lab.host import capabilities
from lab.registry import make_scenario
from lab.scenario import Bench
from lab.service.build import SOURCE_DIR
from lab.spec import Endpoint, Spec
from lab.timeline import Clock, MarkRecord, Phase, Source, Timeline
from scenarios.surface import Surface, calls, inside, outside
from scenarios.surface.inside import Host, Inside
from scenarios.surface.names import collapsed
from scenarios.surface.syscalls import Call, Outcome, Sees

HOST = Host(boot_id="here", release="6.1", hostname="host", namespaces=LINKS)
FOUND: dict[str, Any] = {
    "kernel": {"system": "Linux", "release": "6.1", "hostname": "c0ffee", "boot_id": "here"},
    "namespaces": {
        **LINKS,
        "pid": "pid:[7]",
        "mnt": "mnt:[8]",
        "pid_for_children": "pid:[7]",
        "time_for_children": LINKS["time"],
    },
    "namespaces_of_first": dict.fromkeys(LINKS, ""),
    "processes": {"seen": 4, "others": 1, "kernel_threads": 0},
    "status": STATUS,
    "id_maps": {"uid": "         0          0 4294967295", "gid": ""},
    "security_module": {"current": "docker-default (enforce)", "apparmor": "", "modules": ""},
    "cgroups": {"path": "4:memory:/docker/abc\n0::/", "mounted": 1, "writable": 0},
    "devices": {"readable": 1, "listed": [["null", "c", "rw"], ["vda", "b", "r"], ["tty1", "c", ""]], "seen": 3},
    "mounts": {
        "listed": [
            ["/", "overlay", "rw", "slave"],
            ["/proc", "proc", "rw", "private"],
            ["/proc/sys", "proc", "ro", "private"],
            ["/proc/keys", "tmpfs", "rw", "private"],
            ["/proc/kcore", "devtmpfs", "rw", "private"],  # rootless: the null device is the host's
            ["/sys/fs/cgroup/cpu", "cgroup", "ro", "private"],
        ],
        "seen": 6,
    },
    "reach": {"/proc/kcore": "r", "/proc/keys": "hidden", "/proc/sysrq-trigger": "w", "/proc/scsi": "absent"},
    "proc": {"named": ["/proc/b", "/proc/a"], "writable": 2, "entries": 9, "bounded": 0},
    "sys": {"named": [], "writable": 0, "entries": 9, "bounded": 0},
    "kallsyms": {"read": 0, "bytes": 4000, "addresses": 0},
    "kernel_log": {"syslog": 1, "kmsg": 2},
    "kcore": {"read": 0, "bytes": 0},
    "settings": {
        "kernel/perf_event_paranoid": "2",
        "kernel/apparmor_restrict_unprivileged_userns": "1",
        "user/max_user_namespaces": "31337",
    },
    "user_namespace": {"unshare": 0, "use": 0},
    "bpf": {"map_create": 1},
}


def made(**changes: Any) -> Inside:
    return Inside(found={**FOUND, **changes}, host=HOST, dropped=False)


def test_a_container_s_facts_in_words() -> None:
    said = inside.facts(made())
    assert said["kernel: boot id"] == "the host's"
    assert said["host name"] == "its own"
    assert said["namespaces: shared with the host"] == "cgroup, ipc, net, time, user, uts"
    assert said["namespaces: for its children"] == "as its own"
    assert said["namespaces: of process 1"] == "not readable"
    assert said["processes in sight"] == "those of its pid namespace only"
    assert said["user: ids"] == "uid 0, gid 0, groups none"
    assert said["user: id map"] == "none: uid 0 is the host's root"
    assert said["capabilities: bounding"] == "all"
    assert said["seccomp"] == "a filter (1 of them)"
    assert said["no new privileges"] == "yes"
    assert said["security module"] == "docker-default (enforce)"
    assert said["devices"] == "null, tty1, vda"
    assert said["devices: it may write"] == "null"
    assert said["devices: of blocks"] == "vda"
    assert said["mounts: root"] == "overlay, rw, slave"
    assert said["mounts: propagation"] == "private, slave"
    assert said["mounts: covering /proc and /sys"] == "/proc/kcore, /proc/keys, /proc/sys"
    assert said["kernel files: it may write"] == "/proc/sysrq-trigger"
    assert said["kernel files: it may read"] == "/proc/kcore"
    assert said["kernel files: hidden"] == "/proc/keys"
    assert said["writable: in /proc"] == "/proc/a, /proc/b"
    assert said["kernel addresses"] == "names only: all addresses are zero"
    assert said["kernel log: syslog(2)"] == "refused (EPERM)"
    assert said["kernel log: /dev/kmsg"] == "not there"
    assert said["kernel memory"] == "hidden"
    assert said["settings: kptr_restrict"] == said["settings: ptrace_scope"] == "not there"
    assert said["settings: apparmor_restrict_unprivileged_userns"] == "1"
    assert said["user namespaces"] == "it may make and use one"
    assert said["bpf"] == "refused (EPERM)"
    assert said["cgroup: place"] == "its path in the host's tree is seen"
    assert inside.counts(made()) == {
        "namespaces_own": 2,
        "capabilities_effective": 14,
        "devices_seen": 3,
        "mounts_seen": 6,
        "host_processes_seen": 0,
        "writable_paths": 2,
    }


def test_every_setting_that_is_asked_for_is_told() -> None:
    source = (SOURCE_DIR / "surface/probes_kernel.c").read_text()
    asked = set(re.findall(r'"((?:kernel|user)/\w+(?:/\w+)?)"', source))
    said = inside.facts(made(settings=dict.fromkeys(asked, "7")))
    told = {probe for probe, words in said.items() if probe.startswith("settings: ") and words != "not there"}
    assert told == {f"settings: {name.rpartition('/')[2]}" for name in asked} and len(asked) >= 9


def test_a_guest_shares_nothing_though_its_first_namespaces_have_the_host_s_numbers() -> None:
    guest = made(
        kernel={"system": "Linux", "release": "6.1", "hostname": "lab", "boot_id": "there"},
        namespaces=LINKS,
        processes={"seen": 50, "others": 47, "kernel_threads": 1},
    )
    said = inside.facts(guest)
    assert said["kernel: boot id"] == "its own"
    assert said["namespaces: shared with the host"] == "none: its kernel is its own"
    assert said["processes in sight"] == "those of its own kernel, kernel threads too"
    assert said["user: id map"] == "none: uid 0 is its own kernel's root"
    assert said["cgroup: place"] == "its path in its own kernel's tree is seen"
    assert inside.counts(guest)["namespaces_own"] == len(inside.NAMESPACES)
    assert inside.counts(guest)["host_processes_seen"] == 0


def test_who_shares_the_pid_namespace_sees_the_host_s_processes() -> None:
    shared = made(namespaces=LINKS, processes={"seen": 99, "others": 96, "kernel_threads": 1})
    assert inside.facts(shared)["namespaces: shared with the host"] == "all"
    assert inside.facts(shared)["processes in sight"] == "the host's, kernel threads too"
    assert inside.counts(shared)["host_processes_seen"] == 96
    assert inside.counts(shared)["namespaces_own"] == 0


def test_a_probe_without_an_answer_says_so_and_has_no_figure() -> None:
    partly = made(devices="timed out", status="failed", proc="not tried")
    said = inside.facts(partly)
    assert said["devices"] == said["devices: it may read"] == "timed out"
    assert said["capabilities: effective"] == "failed"
    assert said["mounts: root"] == "overlay, rw, slave"
    counted = inside.counts(partly)
    assert counted["devices_seen"] == "timed out"
    assert counted["capabilities_effective"] == "failed"
    assert counted["writable_paths"] == "not tried"
    assert counted["mounts_seen"] == 6
    cut = made(sys={"named": [], "writable": 7, "entries": 60000, "bounded": 1})
    assert inside.counts(cut)["writable_paths"] == "at least 7: not all could be walked"


def test_a_list_that_was_cut_short_says_so() -> None:
    cut = inside.facts(made(devices={**FOUND["devices"], "seen": 4}, mounts={**FOUND["mounts"], "seen": 999}))
    assert cut["devices"] == "null, tty1, vda, and more"
    assert cut["mounts: propagation"] == "private, slave, and more"
    assert inside.counts(made(devices={**FOUND["devices"], "seen": 4}))["devices_seen"] == 4


def test_what_a_kernel_does_not_tell_is_not_made_up() -> None:
    bare = made(
        kernel={"system": "Linux", "release": "4.4.0", "hostname": "x", "boot_id": ""},
        status={},
        namespaces=dict.fromkeys(LINKS, ""),
        cgroups={"path": "", "mounted": 0, "writable": 0},
        security_module={"current": "", "apparmor": "", "modules": ""},
    )
    said = inside.facts(bare)
    assert said["kernel: boot id"] == said["seccomp"] == said["capabilities: effective"] == "not told"
    assert said["no new privileges"] == said["namespaces: for its children"] == "not told"
    assert said["security module"] == "none"
    assert said["cgroup: place"] == "in none"
    assert inside.counts(bare)["capabilities_effective"] == "not told"
    same = made(namespaces=dict.fromkeys(LINKS, ""))
    assert inside.facts(same)["namespaces: shared with the host"] == "not told"
    assert inside.counts(same)["namespaces_own"] == inside.counts(same)["host_processes_seen"] == "not told"
    assert inside.facts(same)["processes in sight"] == "not told"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"unshare": 1, "use": 1}, "refused (EPERM)"),
        ({"unshare": 28, "use": 28}, "refused (ENOSPC)"),
        ({"unshare": 0, "use": 13}, "it may make one, and use of it is refused (EACCES)"),  # as AppArmor can have it
    ],
)
def test_a_user_namespace_without_power_is_no_way_to_it(found: dict[str, int], said: str) -> None:
    assert inside.facts(made(user_namespace=found))["user namespaces"] == said


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ("0000000000000000", "none"),
        ("000001ffffffffff", "all"),
        ("0000003fffffffff", "all"),  # Linux before 5.8
        ("000001fffeffffff", "all but sys_resource"),
        ("0000000000000401", "chown, net_bind_service"),
        ("0000020000000001", "cap_41, chown"),
        ("", "not told"),
        ("nonsense", "not told"),
    ],
)
def test_capabilities_by_name(mask: str, said: str) -> None:
    assert capabilities.said(mask) == said


def test_names_that_differ_by_number_are_told_as_a_range() -> None:
    names = ["tty1", "tty0", "tty2", "tty", "sda", "sda1", "pts/0", "pts/17", "pts/ptmx"]
    assert collapsed(names) == "pts/*, pts/ptmx, sda, sda1, tty, tty0-2"
    assert collapsed([]) == "none"


def test_a_security_label_has_nothing_of_one_launch_in_it() -> None:
    assert inside.profile("system_u:system_r:container_t:s0:c12,c345\0") == "SELinux type container_t"
    assert inside.profile("docker-default (enforce)\n") == "docker-default (enforce)"


def call(name: str, said: str, *, sees: Sees | None = Sees.CHECKED) -> Call:
    if said in set(Outcome):
        return Call(name=name, number=1, outcome=Outcome(said), sees=sees)
    if said.startswith("SIG"):
        return Call(name=name, number=1, outcome=Outcome.SIGNAL, signal=said, sees=sees)
    return Call(name=name, number=1, outcome=Outcome.ERRNO, errno=said, sees=sees)


def test_refused_calls_are_told_by_answer_and_those_of_a_filter_apart() -> None:
    tried = [
        call("mount", "EPERM"),
        call("keyctl", "EPERM", sees=Sees.FAULT),
        call("setpriority", "EACCES"),
        call("ptrace", "SIGSYS", sees=Sees.WORKS),
        call("getpid", "ok", sees=Sees.WORKS),
        call("read", "EBADF", sees=Sees.FAULT),
        call("clone3", "ENOSYS"),
        call("vserver", "ENOSYS", sees=Sees.GONE),
        call("tuxcall", "EPERM", sees=Sees.GONE),
        call("wait4", "timeout"),
        call("vhangup", "untried", sees=None),
    ]
    assert calls.facts(tried) == {
        "system calls: refused": "EACCES: setpriority; EPERM: keyctl, mount, tuxcall; SIGSYS: ptrace",
        "system calls: refused by a filter for certain": "keyctl, ptrace, tuxcall",
        "system calls: answered ENOSYS": "clone3",
        "system calls: without an answer": "timeout: wait4",
    }
    assert calls.counts(tried) == {
        "calls_refused": 5,
        "calls_filtered": 3,
        "calls_absent": 1,
        "calls_tried": 10,
        "calls_not_tried": 1,
    }


def test_where_some_calls_had_no_turn_none_is_counted_as_let_through() -> None:
    tried = [call("mount", "EPERM"), call("msync", "late"), call("madvise", "unmade")]
    assert calls.facts(tried)["system calls: without an answer"] == "late: msync; unmade: madvise"
    counted = calls.counts(tried)
    assert counted["calls_refused"] == counted["calls_filtered"] == "2 calls were not tried in time"
    assert (counted["calls_tried"], counted["calls_not_tried"]) == (1, 0)


def test_a_kernel_without_some_kind_of_namespace_is_compared_by_the_others() -> None:
    older = {kind: link for kind, link in LINKS.items() if kind != "time"}
    found = made(namespaces={**older, "time": ""})
    assert Inside(found=found.found, host=replace(HOST, namespaces=older), dropped=False).shared() == list(older)


class FakeBench:
    """A bench whose only launch is asked by what replaces `inside.look` and `probe_calls`."""

    def __init__(self, *features: Feature, **spec: Any) -> None:
        self.spec = Spec(**spec).for_launch()
        self.info = SimpleNamespace(features=frozenset(features))
        self.samples: list[tuple[str, float, dict[str, str]]] = []
        self.marks: list[MarkRecord] = []

    @contextlib.contextmanager
    def session(self) -> Iterator[Any]:
        instance = SimpleNamespace(endpoint=Endpoint("127.0.0.1", 1))
        yield SimpleNamespace(spec=self.spec, instance=instance, timeline=Timeline(self.marks))

    def emit(self, metric: str, value: float, unit: str, **dimensions: str) -> None:
        self.samples.append((metric, value, dimensions))

    def said(self) -> Mapping[str, str]:
        return {told["probe"]: told["said"] for metric, _, told in self.samples if metric == "fact"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether privileges were dropped for each look at the system calls."""
    drops: list[bool] = []

    def probe_calls(_: Any, *, drop: bool) -> list[Call]:
        drops.append(drop)
        return [call("mount", "EPERM")]

    monkeypatch.setattr("scenarios.surface.inside.look", lambda *_: made(devices="timed out"))
    monkeypatch.setattr("scenarios.surface.syscalls.probe_calls", probe_calls)
    return drops


def test_the_scenario_tells_both_sides_and_means_every_probe(asked: list[bool]) -> None:
    bench = FakeBench(Feature.NETWORK)
    bench.marks = [
        MarkRecord(phase=Phase.MAIN, ns=2, clock=Clock.HOST, source=Source.LOG),
        MarkRecord(phase=Phase.MAIN, ns=1, clock=Clock.GUEST, source=Source.SERVICE),
    ]
    scenario = make_scenario("surface", {})
    scenario.measure(cast("Bench", bench))
    assert isinstance(scenario, Claims)
    said = bench.said()
    assert said["clock"] == "not proven to be the host's"
    assert said["host processes"] == "none that this host can tell"
    assert said["system calls: refused"] == "EPERM: mount"
    assert [probe for probe in said if evidence.meaning(scenario, probe) is None] == []
    assert asked == [False]
    values = {metric: value for metric, value, told in bench.samples if told.get("seen") == "inside"}
    assert values["calls_refused"] == 1
    assert "devices_seen" not in values
    assert {(told["of"], told["why"]) for metric, _, told in bench.samples if metric == "absent"} == {
        ("devices_seen", "timed out")
    }
    answers = {"calls_refused", "calls_filtered", "namespaces_own", "capabilities_effective", "host_processes_seen"}
    assert values.keys() - EXPLAINING == answers | {"writable_paths", "fact"}
    assert scenario.headline in answers


def test_every_meaning_is_of_some_probe(tmp_path: Path) -> None:
    make_process(tmp_path, "self")
    for pid in ("1", "2", "3", "4"):
        make_process(tmp_path, pid)
    pids = dict(zip((1, 2, 3, 4), (Role.SERVICE, Role.SHIM, Role.PROXY, Role.HELPER), strict=True))
    from_outside = outside.facts(outside.look(pids, tmp_path), Role.SERVICE)
    probes = [*inside.facts(made()), *from_outside, *calls.facts([]), "clock"]
    assert set(Surface.meanings) == {probe.partition(":")[0] for probe in probes}
    assert all(text.what and text.why and text.page for text in Surface.meanings.values())


def test_what_cannot_be_asked_is_unsupported_before_a_launch(asked: list[bool]) -> None:
    with pytest.raises(Unsupported, match="neither"):
        Surface().measure(cast("Bench", FakeBench()))
    Surface().measure(cast("Bench", FakeBench(Feature.EXEC)))


def test_privileges_are_dropped_where_all_namespaces_are_the_host_s_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths: list[str] = []
    own: dict[str, Any] = {"kernel": FOUND["kernel"], "namespaces": LINKS}

    def get(_: Any, path: str, **__: Any) -> Mapping[str, Any]:
        paths.append(path.partition("?")[2])
        return own

    monkeypatch.setattr("scenarios.surface.inside.ask.get", get)
    session = cast("Any", SimpleNamespace(instance=None))
    assert inside.look(session, HOST).dropped
    assert paths[0] == "group=self"
    assert all(path.endswith("&drop=1") for path in paths[1:])
    paths.clear()
    own["namespaces"] = FOUND["namespaces"]
    assert not inside.look(session, HOST).dropped
    own.update(namespaces=LINKS, kernel={**FOUND["kernel"], "boot_id": "there"})
    assert not inside.look(session, HOST).dropped
    assert not [path for path in paths if "drop" in path]

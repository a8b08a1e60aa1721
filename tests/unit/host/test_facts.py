import json
import time
from pathlib import Path
from typing import Any

import pytest

from lab.host.facts import Steal, boot_id, host_facts, host_id_of, host_identity, time_namespace
from lab.host.noise import HostWarning, WarningCode, host_warnings
from lab.host.procfs import mount_of, read_cpu_list, read_cpu_ticks, read_mounts

CPUS = "sys/devices/system/cpu"
QUIET = {
    "proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon 1\nmicrocode\t: 0x1\n"
    "flags\t\t: fpu vme\n\nprocessor\t: 1\nmodel name\t: another\n",
    "proc/meminfo": "MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\nSwapTotal:       1000 kB\n"
    "SwapFree:        1000 kB\nHugePages_Total:       3\nHugepagesize:       2048 kB\n",
    "proc/stat": "cpu  1000 10 200 90000 5 0 3 90 40 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n",
    "proc/loadavg": "1.90 0.50 0.25 1/100 4242\n",
    "proc/cmdline": "root=/dev/sda quiet\n",
    "proc/cgroups": "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t2\t1\t1\nmemory\t3\t1\t1\nrdma\t0\t1\t0\n",
    "proc/1/comm": "systemd\n",
    "proc/self/status": "Name:\tpython\nCpus_allowed_list:\t0-2\n",
    "proc/self/mountinfo": "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda rw,errors=remount-ro\n"
    "23 22 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n",
    "proc/sys/kernel/osrelease": "6.1.0-18-amd64\n",
    "proc/sys/kernel/version": "#1 SMP\n",
    "proc/sys/kernel/random/boot_id": "b2c1\n",
    "proc/sys/vm/swappiness": "60\n",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "sys/kernel/mm/transparent_hugepage/defrag": "always defer [defer+madvise] madvise never\n",
    "sys/kernel/mm/ksm/run": "0\n",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n# note\n',
    "sys/module/kvm_intel/parameters/nested": "Y\n",
    "sys/class/dmi/id/bios_version": "1.28.0\n",
    "dev/kvm": "",
    f"{CPUS}/online": "0-3\n",
    f"{CPUS}/smt/active": "0\n",
    f"{CPUS}/intel_pstate/no_turbo": "1\n",
    f"{CPUS}/cpuidle/current_driver": "intel_idle\n",
    f"{CPUS}/vulnerabilities/meltdown": "Mitigation: PTI\n",
    f"{CPUS}/cpu0/thermal_throttle/core_throttle_count": "0\n",
    "sys/class/power_supply/BAT0/type": "Battery\n",
    "sys/class/power_supply/BAT0/status": "Full\n",
    **{f"{CPUS}/cpu{cpu}/topology/physical_package_id": "0\n" for cpu in range(4)},
    **{f"{CPUS}/cpu{cpu}/topology/core_id": f"{cpu}\n" for cpu in range(4)},
    **{f"{CPUS}/cpufreq/policy{cpu}/scaling_governor": "performance\n" for cpu in range(4)},
    **{f"{CPUS}/cpufreq/policy{cpu}/scaling_driver": "intel_pstate\n" for cpu in range(4)},
    **{f"{CPUS}/cpufreq/policy{cpu}/scaling_min_freq": "2400000\n" for cpu in range(4)},
    **{f"{CPUS}/cpufreq/policy{cpu}/scaling_max_freq": "2400000\n" for cpu in range(4)},
}
"""A physical machine at which nothing is to be found fault with."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "root"
    for name, text in QUIET.items():
        put(place, name, text)
    for name, target in (("time", "time:[1]"), ("pid", "pid:[2]")):
        (place / "proc/self/ns").mkdir(exist_ok=True)
        (place / "proc/self/ns" / name).symlink_to(target)
    (place / "run/systemd/system").mkdir(parents=True)
    return place


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def facts_of(root: Path) -> dict[str, Any]:
    return dict(host_facts(root))


def test_facts_of_a_physical_machine(root: Path) -> None:
    facts = facts_of(root)
    assert facts["cpu"] | {"architecture": "x"} == {
        "model": "Xeon 1",
        "vendor": "GenuineIntel",
        "architecture": "x",
        "microcode": "0x1",
        "threads_online": 4,
        "cores_online": 4,
        "sockets_online": 1,
        "threads_allowed": 3,
        "smt_active": False,
        "governors": ["performance"],
        "frequency_driver": "intel_pstate",
        "frequency_min_hz": 2_400_000_000,
        "frequency_max_hz": 2_400_000_000,
        "turbo_on": False,
        "idle_driver": "intel_idle",
    }
    assert facts["memory"] == {
        "memory_total_bytes": 16_384_000_000,
        "swap_total_bytes": 1_024_000,
        "swappiness": 60,
        "thp": "madvise",
        "thp_defrag": "defer+madvise",
        "ksm_on": False,
        "hugepages_total": 3,
        "hugepage_bytes": 2 << 20,
    }
    assert facts["kernel"] == {
        "release": "6.1.0-18-amd64",
        "version": "#1 SMP",
        "cmdline": "root=/dev/sda quiet",
        "clocksource": "tsc",
        "mitigations": {"meltdown": "Mitigation: PTI"},
    }
    assert facts["cgroup"] == {"version": "v2", "controllers": ["cpu", "cpuset", "io", "memory", "pids"]}
    assert facts["virtualization"] == {
        "hypervisor": False,
        "hypervisor_vendor": None,
        "dmi_vendor": None,
        "dmi_product": None,
        "bios_version": "1.28.0",
        "container": None,
        "kvm_device_present": True,
        "kvm_device_accessible": True,
        "kvm_module": "kvm_intel",
        "kvm_nested_on": True,
    }
    assert {key: facts["system"][key] for key in ("init", "distribution", "distribution_version")} == {
        "init": "systemd",
        "distribution": "debian",
        "distribution_version": "12",
    }
    assert facts["volatile"] == {
        "boot_id": "b2c1",
        "time_namespace": "time:[1]",
        "load_average_1min": 1.9,
        "load_average_5min": 0.5,
        "load_average_15min": 0.25,
        "steal_fraction": None,
        "steal_fraction_since_boot": 90 / 91308,
        "memory_available_bytes": 8_192_000_000,
        "swap_used_bytes": 0,
        "thermal_throttle_count_since_boot": 0,
        "on_battery": False,
        "filesystem_available_bytes": {},
    }
    assert host_warnings(facts) == []


def test_an_empty_root_gives_the_same_keys_and_nothing_invented(root: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    facts, full = facts_of(empty), facts_of(root)
    assert {group: set(values) for group, values in facts.items()} == {
        group: set(values) for group, values in full.items()
    }
    told = {
        (group, key) for group, values in facts.items() for key, value in values.items() if value not in (None, {}, [])
    }
    assert told == {
        ("cpu", "architecture"),
        ("system", "python_version"),
        ("system", "lab_version"),
        ("virtualization", "kvm_device_present"),
        ("virtualization", "kvm_device_accessible"),
    }
    assert facts["virtualization"]["kvm_device_present"] is False
    assert host_warnings(facts) == []
    assert boot_id(empty) == ""
    assert time_namespace(empty) == ""


def test_facts_of_this_machine_are_json_and_quick_to_read(tmp_path: Path) -> None:
    facts = host_facts(paths={"run_dir": tmp_path, "store": tmp_path / "not" / "yet"})
    assert json.loads(json.dumps(facts)) == facts
    assert facts["volatile"]["boot_id"] == boot_id() != ""  # type: ignore[index,call-overload]
    filesystems, free = facts["filesystems"], facts["volatile"]["filesystem_available_bytes"]  # type: ignore[index,call-overload]
    assert filesystems["run_dir"]["type"]  # type: ignore[index,call-overload]
    assert filesystems["store"] == filesystems["run_dir"]  # type: ignore[index,call-overload]
    assert free["run_dir"] > 0  # type: ignore[index,call-overload,operator]


@pytest.mark.parametrize(
    ("code", "files"),
    [
        (WarningCode.GOVERNOR, {f"{CPUS}/cpufreq/policy2/scaling_governor": "powersave"}),
        (WarningCode.FREQUENCY_SCALING, {f"{CPUS}/cpufreq/policy0/scaling_min_freq": "800000"}),
        (WarningCode.TURBO, {f"{CPUS}/intel_pstate/no_turbo": "0"}),
        (WarningCode.SMT, {f"{CPUS}/smt/active": "1"}),
        (WarningCode.FEW_CORES, {f"{CPUS}/online": "0-1", "proc/loadavg": "0.1 0 0 1/1 1"}),
        (WarningCode.THROTTLED, {f"{CPUS}/cpu3/thermal_throttle/package_throttle_count": "7"}),
        (WarningCode.BATTERY, {"sys/class/power_supply/BAT0/status": "Discharging"}),
        (WarningCode.LOAD, {"proc/loadavg": "2.01 0.00 0.00 1/100 4242"}),
        (WarningCode.STEAL, {"proc/stat": "cpu  1000 0 0 8800 0 0 0 200 0 0"}),
        (WarningCode.VIRTUALIZED, {"proc/cpuinfo": "model name: x\nflags : fpu hypervisor sse"}),
        (WarningCode.VIRTUALIZED, {"sys/class/dmi/id/sys_vendor": "QEMU"}),
        (WarningCode.VIRTUALIZED, {"sys/hypervisor/type": "xen"}),
        (WarningCode.VIRTUALIZED, {"proc/device-tree/compatible": "linux,dummy-virt\0"}),
        (WarningCode.THP, {"sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never"}),
        (WarningCode.KSM, {"sys/kernel/mm/ksm/run": "1"}),
        (
            WarningCode.SWAP,
            {"proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 5000000 kB\nSwapTotal: 10 kB\nSwapFree: 6 kB"},
        ),
        (WarningCode.LOW_MEMORY, {"proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 1000000 kB"}),
        (
            WarningCode.CLOCKSOURCE,
            {"sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet"},
        ),
        (WarningCode.CGROUP_V1, {"proc/self/mountinfo": "1 1 0:1 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"}),
    ],
)
def test_each_warning_and_no_other(root: Path, code: WarningCode, files: dict[str, str]) -> None:
    for name, text in files.items():
        put(root, name, text)
    warnings = host_warnings(facts_of(root))
    assert [warning.code for warning in warnings] == [code]
    assert "\n" not in warnings[0].text
    assert warnings[0].remedy


def test_every_warning_code_can_be_raised_at_once_in_their_order(root: Path) -> None:
    facts: dict[str, Any] = {
        "cpu": {
            "governors": ["powersave"],
            "frequency_min_hz": 1,
            "frequency_max_hz": 2,
            "turbo_on": True,
            "smt_active": True,
            "cores_online": 1,
        },
        "memory": {"thp": "always", "ksm_on": True},
        "kernel": {"clocksource": "jiffies"},
        "cgroup": {"version": "hybrid"},
        "virtualization": {"hypervisor": True, "hypervisor_vendor": "KVMKVMKVM"},
        "volatile": {
            "load_average_1min": 3.0,
            "steal_fraction": 0.05,
            "thermal_throttle_count_since_boot": 1,
            "on_battery": True,
            "memory_available_bytes": 1,
            "swap_used_bytes": 1,
        },
    }
    assert [warning.code for warning in host_warnings(facts)] == list(WarningCode)


def test_steal_of_the_run_goes_before_steal_since_boot() -> None:
    facts = {"volatile": {"steal_fraction": 0.0, "steal_fraction_since_boot": 0.5}}
    assert host_warnings(facts) == []
    facts = {"volatile": {"steal_fraction": 0.02, "steal_fraction_since_boot": 0.0}}
    assert host_warnings(facts) == [
        HostWarning(
            WarningCode.STEAL,
            "the hypervisor took 2.0% of the CPU time during the run",
            "measure on dedicated CPUs",
        )
    ]


def test_steal_is_of_the_time_between_two_readings(root: Path) -> None:
    steal = Steal(root)
    assert steal.stop() is None  # never started
    put(root, "proc/stat", "cpu 1000 0 0 1000 0 0 0 500 300 0\n")
    steal.start()
    put(root, "proc/stat", "cpu 1100 0 0 1040 0 0 0 510 390 0\n")
    assert steal.stop() is None  # 150 ticks: too few
    put(root, "proc/stat", "cpu 1200 0 0 1180 0 0 0 520 390 0\n")
    assert steal.stop() == 20 / 400
    assert host_facts(root, steal=steal)["volatile"]["steal_fraction"] == 20 / 400  # type: ignore[index,call-overload]


def test_steal_of_this_machine_is_a_fraction() -> None:
    steal = Steal()
    steal.start()
    first = read_cpu_ticks(Path("/"))
    deadline = time.monotonic() + 30
    while (told := steal.stop()) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    last = read_cpu_ticks(Path("/"))
    assert first is not None
    assert last is not None
    assert last[1] - first[1] >= 200
    assert told is not None
    assert 0 <= told <= 1


@pytest.mark.parametrize(
    ("mounts", "version", "controllers"),
    [
        ("1 1 0:1 / /sys/fs/cgroup rw - cgroup2 c rw", "v2", ["cpu", "cpuset", "io", "memory", "pids"]),
        ("1 1 0:1 / /sys/fs/cgroup/memory rw - cgroup c rw,memory", "v1", ["memory"]),
        (
            "1 1 0:1 / /sys/fs/cgroup/memory rw - cgroup c rw,memory\n"
            "1 1 0:2 / /sys/fs/cgroup/systemd rw - cgroup c rw,name=systemd\n"
            "1 1 0:3 / /sys/fs/cgroup/unified rw - cgroup2 c rw",
            "hybrid",
            ["memory"],
        ),
        ("1 1 8:1 / / rw - ext4 /dev/sda rw", None, None),
    ],
)
def test_cgroup_version(root: Path, mounts: str, version: str | None, controllers: list[str] | None) -> None:
    put(root, "proc/self/mountinfo", mounts)
    assert facts_of(root)["cgroup"] == {"version": version, "controllers": controllers}


def test_arm_without_any_sign_does_not_say_whether_it_is_virtual(root: Path) -> None:
    put(root, "proc/cpuinfo", "processor : 0\nCPU implementer : 0x41\nCPU part : 0xd0c\n")
    facts = facts_of(root)
    assert facts["cpu"]["model"] == "implementer 0x41, part 0xd0c"
    assert facts["virtualization"]["hypervisor"] is None
    assert host_warnings(facts) == []


def test_turbo_by_the_other_drivers_switch(root: Path) -> None:
    (root / CPUS / "intel_pstate/no_turbo").unlink()
    assert facts_of(root)["cpu"]["turbo_on"] is None
    put(root, f"{CPUS}/cpufreq/boost", "1")
    assert facts_of(root)["cpu"]["turbo_on"] is True


def test_container_is_believed_only_outside_the_hosts_process_namespace(root: Path) -> None:
    put(root, ".dockerenv", "")
    assert facts_of(root)["virtualization"]["container"] == "docker"
    (root / "proc/self/ns/pid").unlink()
    (root / "proc/self/ns/pid").symlink_to("pid:[4026531836]")
    assert facts_of(root)["virtualization"]["container"] is None


def test_a_mouses_battery_is_not_the_machines(root: Path) -> None:
    put(root, "sys/class/power_supply/BAT0/scope", "Device")
    put(root, "sys/class/power_supply/BAT0/status", "Discharging")
    assert facts_of(root)["volatile"]["on_battery"] is None


def test_the_nearest_and_latest_mount_is_taken(root: Path) -> None:
    put(
        root,
        "proc/self/mountinfo",
        "1 1 8:1 / / rw - ext4 /dev/sda rw\n2 1 8:2 / /srv/a\\040b rw - xfs /dev/sdb rw\n"
        "3 1 0:9 / /srv/a\\040b rw - tmpfs none rw\n4 1 8:3 / /srv/a rw - btrfs /dev/sdc rw\n",
    )
    mounts = read_mounts(root)
    found = {path: mount_of(Path(path), mounts) for path in ("/srv/a b/x", "/srv/a", "/srv/ab", "/")}
    assert {path: mount.type for path, mount in found.items() if mount} == {
        "/srv/a b/x": "tmpfs",
        "/srv/a": "btrfs",
        "/srv/ab": "ext4",
        "/": "ext4",
    }


@pytest.mark.parametrize(("text", "cpus"), [("0-2,8", [0, 1, 2, 8]), ("5", [5]), ("", []), (None, []), ("x-", [])])
def test_cpu_list(text: str | None, cpus: list[int]) -> None:
    assert read_cpu_list(text) == cpus


def test_a_host_is_known_by_its_machine_id_which_is_not_told(tmp_path: Path) -> None:
    machine = "3d1219c7c4c5404aaa1f6d2a48adfda4"
    for name, text in {"etc/machine-id": f"{machine}\n", "proc/sys/kernel/hostname": "lab-1\n"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = host_identity(tmp_path, named="")
    assert found.name == "lab-1" and found.id == host_id_of(machine) and machine[:6] not in found.id
    (tmp_path / "proc/sys/kernel/hostname").write_text("renamed\n")
    assert host_identity(tmp_path, named="").id == found.id
    clone = host_identity(tmp_path, named=" runner 7 ")
    assert clone.name == "runner 7" and clone.id != found.id
    (tmp_path / "etc/machine-id").write_text("uninitialized\n")  # of an image: machine-id(5)
    without = host_identity(tmp_path, named="")
    assert without.name == "renamed" and without.id not in (found.id, clone.id)
    assert host_identity(tmp_path, named="").id == without.id


def test_the_environment_names_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_HOST", "bench")
    assert host_identity() == host_identity(named="bench") and host_identity().name == "bench"

"""What is counted of an instance's lack of CPU, memory and disk, on files as both versions of cgroups have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.host import strain
from lab.host.strain import Gauge, Reading

PRESSURE = "some avg10=0.00 avg60=0.00 avg300=0.00 total={}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
S = 1_000_000_000


def gauge(root: Path, *, cpu_stat: str, cpu_us: int, steal: int = 0) -> Gauge:
    """An instance's cgroup and the host's ticks (all of them 1,000)."""
    for name, text in {
        "group/cpu.stat": cpu_stat,
        "group/cpu.pressure": PRESSURE.format(cpu_us),
        "group/io.pressure": "Operation not supported",
        "proc/stat": f"cpu {900 - steal} 0 0 100 0 0 0 {steal} 0 0\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    found = strain._pressure(root / "group", "{}.pressure")
    return Gauge(groups=[root / "group"], pressure=found, whole_host=False, root=root)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nr_periods 9\nnr_throttled 4\nthrottled_time 1500000000\n", (1_500_000_000, 4)),
        ("usage_usec 5\nnr_periods 9\nnr_throttled 4\nthrottled_usec 1500000\nnr_bursts 0\n", (1_500_000_000, 4)),
        ("usage_usec 5\nuser_usec 1\nsystem_usec 4\n", None),
        ("", None),
    ],
)
def test_throttling_is_read_in_both_versions(tmp_path: Path, text: str, expected: tuple[int, int] | None) -> None:
    assert gauge(tmp_path, cpu_stat=text, cpu_us=0).read().throttled == expected


def test_the_cgroup_with_the_quota_counts_wherever_it_is(tmp_path: Path) -> None:
    for name, stat in (
        ("leaf", "nr_throttled 0\nthrottled_usec 0\n"),
        ("middle", "nr_throttled 2\nthrottled_usec 7\n"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cpu.stat").write_text(stat)
    (tmp_path / "top").mkdir()  # to which the controller is not passed on
    for names in (["leaf", "middle", "top"], ["top", "middle", "leaf"]):
        made = Gauge(groups=[tmp_path / name for name in names], pressure={}, whole_host=True)
        assert made.read().throttled == (7000, 2)


def test_pressure_is_of_what_the_kernel_tells(tmp_path: Path) -> None:
    made = gauge(tmp_path, cpu_stat="", cpu_us=250)
    assert set(made.pressure) == {"cpu"}
    assert made.read().waited_us == {"cpu": 250}
    (tmp_path / "group/cpu.pressure").unlink()
    assert made.read().waited_us == {}


def test_a_windows_strain_is_what_was_counted_in_it() -> None:
    before = Reading(at_ns=10 * S, throttled=(S, 10), waited_us={"cpu": 1_000_000, "io": 5}, ticks=(10, 1000))
    after = Reading(at_ns=12 * S, throttled=(S + S // 2, 13), waited_us={"cpu": 1_500_000, "io": 5}, ticks=(30, 1400))
    found = after.since(before)
    assert (found.throttled_s, found.throttled_periods) == (0.5, 3)
    assert found.waited == {"cpu": 0.25, "io": 0.0}
    assert found.stolen == 0.05


def test_what_was_not_counted_is_none_and_not_zero() -> None:
    found = Reading(at_ns=2 * S, throttled=None, ticks=(1, 100)).since(Reading(at_ns=S, throttled=(1, 1)))
    assert (found.throttled_s, found.throttled_periods, found.waited, found.stolen) == (None, None, {}, None)
    same = Reading(at_ns=2 * S, throttled=None, ticks=(1, 100))
    assert Reading(at_ns=3 * S, throttled=None, ticks=(1, 100)).since(same).stolen is None


def test_an_instance_without_processes_here_has_only_the_hosts_pressure() -> None:
    made = Gauge.of(None)
    assert made.groups == [] and made.whole_host
    assert made.read().throttled is None

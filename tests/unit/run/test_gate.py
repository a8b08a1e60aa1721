"""Whether a machine is calm enough, and how that is waited for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from lab.host.strain import Strain
from lab.run.gate import Limits, await_calm, look, noise

CALM = Strain(throttled_s=None, throttled_periods=None, waited={"cpu": 0.01, "memory": 0.0, "io": 0.02}, stolen=0.0)
QUIET: Mapping[str, Any] = {"volatile": {"load_average_1min": 0.1}, "cpu": {"cores_online": 2}}


def strain(stolen: float | None = 0.0, **waited: float) -> Strain:
    return Strain(throttled_s=None, throttled_periods=None, waited=waited, stolen=stolen)


@pytest.mark.parametrize(
    ("seen", "facts", "said"),
    [
        (CALM, QUIET, []),
        (strain(cpu=0.25), QUIET, ["something waited for a CPU for 25% of the time (limit 10%)"]),
        (strain(io=0.5, memory=0.2), QUIET, ["a disk for 50%", "memory for 20%"]),
        (strain(stolen=0.03), QUIET, ["the hypervisor took 3.0% of the CPU time (limit 1.0%)"]),
        (strain(stolen=None), {}, []),
        (
            CALM,
            {**QUIET, "volatile": {"load_average_1min": 1.2}},
            ["load average is 1.20 on 2 cores (limit 1)"],
        ),
        (CALM, {**QUIET, "volatile": {"memory_available_bytes": 1 << 20}}, ["only 1 MiB of memory are available"]),
        (CALM, {**QUIET, "memory": {"thp": "always"}, "cpu": {"turbo_on": True}}, []),
    ],
)
def test_what_passes_is_noise_and_what_stays_is_a_condition(
    seen: Strain, facts: Mapping[str, Any], said: Sequence[str]
) -> None:
    found = noise(Limits(), seen, facts)
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))


def test_limits_are_the_users() -> None:
    limits = Limits(load_per_core=5.0, steal=0.5, pressure=0.9)
    facts = {"volatile": {"load_average_1min": 9.0}, "cpu": {"cores_online": 2}}
    assert noise(limits, strain(stolen=0.4, cpu=0.8), facts) == []


def test_this_machine_can_be_looked_at() -> None:
    slept: list[float] = []
    impossible = Limits(load_per_core=1e9, steal=1.0, pressure=1e9)
    assert look(impossible, window_s=0.25, sleep=slept.append) == []
    assert slept == [0.25]


class Machine:
    """One that is noisy for some looks, on a clock of its own."""

    def __init__(self, noisy_looks: int, look_takes_s: float = 10.0) -> None:
        self.at_s = 0.0
        self.looks = 0
        self.said: list[str] = []
        self._noisy, self._takes_s = noisy_looks, look_takes_s

    def look(self) -> list[str]:
        self.looks += 1
        self.at_s += self._takes_s
        return ["load"] if self.looks <= self._noisy else []

    def sleep(self, seconds: float) -> None:
        self.at_s += seconds

    def wait(self, wait_s: float, say: Callable[[str], None] | None = None) -> list[str]:
        return await_calm(
            self.look, wait_s=wait_s, every_s=30.0, say=say or self.said.append, sleep=self.sleep, now=lambda: self.at_s
        )


def test_a_calm_machine_is_not_waited_for() -> None:
    machine = Machine(0)
    assert machine.wait(600.0) == [] and machine.looks == 1 and not machine.said


def test_a_noisy_machine_is_looked_at_again_until_it_is_calm() -> None:
    machine = Machine(3)
    assert machine.wait(600.0) == [] and machine.looks == 4
    assert machine.said[0] == "too noisy to measure: load; looking again for 9 min 50 s"


def test_one_that_stays_noisy_is_given_up_after_the_wait_with_why() -> None:
    machine = Machine(1000)
    assert machine.wait(100.0) == ["load"]
    assert 100.0 <= machine.at_s <= 100.0 + 2 * 10.0
    assert machine.wait(0.0) == ["load"], "one look at least"

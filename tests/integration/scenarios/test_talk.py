"""Pairs on real engines: each path has figures or its reason, and the network that a pair needs goes, also after a
lab that was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from lab.driver import Context, Driver
from lab.figures.series import series_of
from lab.registry import make_driver
from lab.run.clean import sweep
from lab.show.talk import table
from lab.spec import Target
from lab.store.record import Outcome, RunRecord
from scenarios.talk import Talk

Measure = Callable[..., RunRecord]

OPEN = {
    "process": {"loopback", "unix socket"},
    "docker": {"bridge", "named network"},
    "swarm": {"bridge", "overlay dnsrr"},
    "libvirt:microvm": {"user-mode", "bridge"},
}
SHUT = {"docker": {"published port"}, "libvirt:microvm": {"vsock"}}  # whose kernel's joins no guest to another
QUICK = {"rate": 100, "slow_rate": 25, "calls": 20, "payloads": "0", "rates": ""}

KILLED = """
import sys, time
from pathlib import Path
from lab.driver import Context
from lab.host.ownership import Owner
from lab.launch.waiter import reserve_port
from lab.registry import make_driver
from lab.run.runner import new_run_id
from lab.spec import Endpoint, Spec, Target
from lab.store.place import cache_dir

class Deaf:
    def __call__(self, phase, *, source): pass
    def line(self, text, *, source): pass
    def moment(self): return self
    def failed(self, error): pass

run = f"t{new_run_id()}"
labels = {"lab.run": run, "lab.scenario": "test", "lab.owner": str(Owner.current()), "lab.target": sys.argv[2]}
driver = make_driver(Target.parse(sys.argv[2]), Context(run_dir=Path(sys.argv[1]), cache_dir=cache_dir()))
spec = Spec(labels=labels, peers="talk").for_launch()
driver.info()
driver.prepare(spec)
driver.launch(spec, Endpoint("127.0.0.1", reserve_port(None)), Deaf())
print(run, flush=True)
time.sleep(60)
"""
"""A lab that makes a pair's network and an instance on it, and is then killed."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.service.calls.LATE_SHARE", 1.0)  # these tests may share their CPUs


@pytest.fixture
def driver(target: str, make_context: Callable[..., Context]) -> Iterator[Driver]:
    made = make_driver(Target.parse(target), make_context())
    yield made
    made.close()


@pytest.mark.parametrize("target", [pytest.param(one, marks=pytest.mark.engine(one)) for one in OPEN])
def test_each_path_has_its_figures_or_its_reason(target: str, driver: Driver, measure: Measure) -> None:
    chain = {"depth": 3} if target == "docker" else {}
    curve = {"rates": "1000"} if target == "process" else {}
    gentle = {"rate": 20} if target.startswith("libvirt") else {}  # for an emulated guest, beside other tests
    record = measure(Talk(**QUICK | chain | curve | gentle), driver)
    assert [launch.error for launch in record.launches if launch.outcome is not Outcome.OK] == []
    rows = series_of(record)
    told = [sample.dimensions for sample in record.samples if sample.metric == "absent"]
    of_path = {row.dimensions["path"]: row for row in rows if row.metric == "call_p50_s"}
    assert set(of_path) == OPEN[target], told
    assert all(value > 0 for row in of_path.values() for value in row.values)
    firsts = {row.dimensions["path"]: row.values[0] for row in rows if row.metric == "first_call_s"}
    assert set(firsts) == OPEN[target]
    named = {row.dimensions["path"] for row in rows if row.metric == "resolve_s"}
    assert named == OPEN[target] & {"named network", "overlay dnsrr"}
    sides = [row for row in rows if row.metric == "cpu_per_1000_s"]
    taken = {(row.dimensions["path"], row.dimensions["side"]): row.values[0] for row in sides}
    assert all(taken[path, side] > 0 for path in OPEN[target] for side in ("caller", "callee"))
    assert {line[0].partition("\n")[2] for line in table.shut(record)} == SHUT.get(target, set())
    if curve:
        assert {row.dimensions["path"] for row in rows if row.metric == "highest_rate"} == OPEN[target]
    if chain:
        chained = {row.dimensions["through"]: row.values[0] for row in rows if row.metric == "chain_p50_s"}
        assert set(chained) == {"services", "one process"}
        assert chained["services"] > chained["one process"] > 0


@pytest.mark.parametrize(
    "target", [pytest.param(one, marks=pytest.mark.engine(one)) for one in ("docker", "libvirt:microvm")]
)
def test_a_pairs_network_is_found_and_goes_after_the_lab_was_killed(
    target: str, driver: Driver, make_context: Callable[..., Context]
) -> None:
    lab = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(make_context().run_dir), target], stdout=subprocess.PIPE, text=True
    )
    assert lab.stdout is not None
    run = lab.stdout.readline().strip()
    lab.send_signal(signal.SIGKILL)
    lab.wait(30)
    lab.stdout.close()
    assert run, "it made nothing"
    mine = {"lab.run": run}
    assert [left.kind for left in driver.leftovers(mine) if left.kind == "network"] == ["network"]
    assert len(driver.list_instances(mine)) == 1
    swept = sweep([driver], mine)  # its owner is proven dead
    assert not swept.problems
    assert {"instance", "network"} <= {found.kind for found in swept.removed}
    assert not driver.list_instances(mine)
    assert not driver.leftovers(mine)

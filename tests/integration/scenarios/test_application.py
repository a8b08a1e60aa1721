"""The example's application of three services of others, from Debian's packages, on real engines."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from pydantic.dataclasses import dataclass

from lab.driver import Context, Driver
from lab.figures.series import series_of
from lab.registry import make_driver
from lab.run.clean import sweep
from lab.scenario import Bench
from lab.show.application.table import lanes
from lab.spec import Target
from lab.store.place import cache_dir, partial_folder
from lab.store.record import Outcome, RunRecord
from scenarios.application import memory
from scenarios.application.boot import emit_boot
from scenarios.application.launched import launched
from scenarios.application.recover import AppRecover

EXAMPLE = Path(__file__).parents[3] / "examples" / "app"
SERVICES = ("store", "worker", "web")
TARGETS = {"docker": ("app.toml", 1.0), "swarm": ("compose.yaml", 1.0), "libvirt:q35": ("compose.yaml", 0.0)}
"""Each with the file that it is launched from, and whether its engine brings back what was killed."""
BACK_S = 30.0

Measure = Callable[..., RunRecord]

pytestmark = [pytest.mark.beyond_engine, pytest.mark.timeout(240)]

KILLED = """
import json, sys, time
from pathlib import Path
from lab.driver import Context
from lab.host.ownership import Owner
from lab.launch.waiter import reserve_port
from lab.registry import make_driver, make_scenario
from lab.run.runner import new_run_id
from lab.spec import Endpoint, Spec, Target
from lab.store.place import cache_dir

class Deaf:
    def __call__(self, phase, *, source): pass
    def line(self, text, *, source): pass
    def moment(self): return self
    def failed(self, error): pass

folder, file, images = sys.argv[1:]
run = f"t{new_run_id()}"
labels = {"lab.run": run, "lab.scenario": "test", "lab.owner": str(Owner.current()), "lab.target": "docker"}
driver = make_driver(Target.parse("docker"), Context(run_dir=Path(folder), cache_dir=cache_dir()))
app = make_scenario("app-boot", {"file": file, "images": images})
driver.info()
for spec in app.specs(Spec(labels=labels), driver).values():
    driver.prepare(spec)
    driver.launch(spec.for_launch(), Endpoint("127.0.0.1", reserve_port(None)), Deaf())
print(run, flush=True)
time.sleep(60)
"""
"""A lab that launches an application, and is then killed."""


@dataclass(frozen=True, kw_only=True)
class All(AppRecover):
    """Every question of one launch."""

    def measure(self, bench: Bench) -> None:
        with launched(bench, self) as running:
            emit_boot(bench, running)
            memory._emit(bench, running)
            self._kill_and_wait(bench, "store", running.sessions["store"], running.entry)


@pytest.fixture(scope="session")
def images() -> Mapping[str, str]:
    """The example's images, made as a user would, and kept with the packages that they are made from."""
    sources = b"".join((EXAMPLE / name).read_bytes() for name in ("make_images.py", "web.sh", "worker.py"))
    folder = cache_dir() / "tests" / f"app-{hashlib.sha256(sources).hexdigest()[:12]}"
    if not folder.exists():
        made = partial_folder(cache_dir()) / f"{folder.name}.{os.getpid()}"
        packages = str(cache_dir() / "debian")
        command = [sys.executable, str(EXAMPLE / "make_images.py"), "--to", str(made), "--cache", packages]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode == 2:
            pytest.skip(f"Debian's packages are not to be had here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        folder.parent.mkdir(exist_ok=True)
        try:
            made.rename(folder)
        except OSError:  # another worker was first
            assert folder.exists()
    return {name: str(folder / f"{name}.tar") for name in SERVICES}


@pytest.fixture
def driver(target: str, make_context: Callable[..., Context]) -> Iterator[Driver]:
    made = make_driver(Target.parse(target), make_context())
    yield made
    made.close()


@pytest.mark.parametrize("target", [pytest.param(one, marks=pytest.mark.engine(one)) for one in TARGETS])
def test_a_whole_application_answers_is_accounted_for_and_comes_back_where_its_engine_sees_to_that(
    target: str, driver: Driver, measure: Measure, images: Mapping[str, str]
) -> None:
    name, back = TARGETS[target]
    described = {"file" if name.endswith(".toml") else "compose": str(EXAMPLE / name)}
    scenario = All(**described, images=images, within=BACK_S if back else 1.0)
    record = measure(scenario, driver, timeout_s=150)  # an emulated guest beside other tests
    assert [f"{one.error}\n{one.logs}" for one in record.launches if one.outcome is not Outcome.OK] == []
    assert [one.reason for one in record.targets if one.reason] == []
    assert sorted(launch.facts["service"] for launch in record.launches) == sorted(SERVICES)
    rows = series_of(record)
    store, worker, web = lanes(record, rows)
    assert [(lane.service, lane.after) for lane in (store, worker, web)] == [
        ("store", ""),
        ("worker", "store"),
        ("web", "worker"),
    ]
    assert worker.requested_s > 0  # after the first word of the store's start
    assert web.requested_s >= worker.ready_s > worker.requested_s
    values = {(row.metric, row.dimensions.get("service", "")): row.values[0] for row in rows}
    assert values["app_boot_s", ""] == web.ready_s > web.requested_s
    parts = [values["service_pss_bytes", name] for name in SERVICES]
    assert sum(parts) == values["app_pss_bytes", ""] and min(parts) > 1_000_000
    assert [sample.dimensions.get("why") for sample in record.samples if sample.metric == "absent"] == []
    (recovered,) = (row for row in rows if row.metric == "app_recovered")
    assert (recovered.dimensions["killed"], recovered.values) == ("store", (back,))
    assert [row.values[0] > 0 for row in rows if row.metric == "app_recover_s"] == [True] * int(back)


@pytest.mark.engine("docker")
@pytest.mark.parametrize("target", ["docker"])
def test_an_application_is_found_and_goes_after_the_lab_was_killed(
    driver: Driver, tmp_path: Path, images: Mapping[str, str]
) -> None:
    given = ",".join(f"{name}={path}" for name, path in images.items())
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(EXAMPLE / "app.toml"), given]
    lab = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert lab.stdout is not None
    run = lab.stdout.readline().strip()
    lab.send_signal(signal.SIGKILL)
    lab.wait(30)
    lab.stdout.close()
    assert run, "it made nothing"
    mine = {"lab.run": run}
    assert len(driver.list_instances(mine)) == len(SERVICES)
    kinds = [left.kind for left in driver.leftovers(mine)]
    assert (kinds.count("network"), kinds.count("image")) == (1, len(SERVICES))
    swept = sweep([driver], mine)  # its owner is proven dead
    assert not swept.problems
    assert not driver.list_instances(mine)
    assert not driver.leftovers(mine)


@pytest.mark.engine("docker")
def test_the_command_shows_the_plan_and_names_what_it_leaves_out(images: Mapping[str, str]) -> None:
    given = [word for name, path in images.items() for word in ("--image", f"{name}={path}")]
    command = [sys.executable, "-m", "lab", "app", "boot", "--compose", str(EXAMPLE / "compose.yaml"), *given]
    done = subprocess.run(
        [*command, "-t", "docker", "--dry-run", "--json"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["memory_bytes"] == 3 * 128 * 1024 * 1024
    assert "left out of compose.yaml: services.worker.healthcheck" in done.stderr
    assert f"store ({images['store']}, port 6379), then worker" in done.stderr

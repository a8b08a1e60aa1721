"""Whole applications: what services are told of one another, who waits for whom, and what becomes of a failure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lab.driver import Context, Instance, Mark
from lab.errors import BadInput, LaunchError, Unsupported
from lab.features import Feature
from lab.figures.series import series_of
from lab.registry import make_scenario
from lab.show.application.table import lanes
from lab.show.report import render
from lab.show.table import render_run
from lab.spec import Endpoint, Restart, Spec
from lab.store.record import Outcome, RunRecord, RunStatus
from lab.testing import FakeDriver
from scenarios.application import launched as launching
from scenarios.application.boot import AppBoot
from scenarios.application.described import Application, Service, application
from scenarios.application.memory import AppMemory
from scenarios.application.placed import placed
from scenarios.application.recover import AppRecover

Measure = Callable[..., RunRecord]
OWN = "stratalab/service"


class Named:
    """Peers have names."""

    name = "named"

    def peer_address(self, spec: Spec, published: Endpoint) -> tuple[str, int]:
        return spec.alias, spec.port


class Nameless:
    """As guests: by an address of the host's, at the port that is published."""

    name = "nameless"

    def peer_address(self, spec: Spec, published: Endpoint) -> tuple[str, int]:
        return "10.0.2.2", published.port


def service(name: str, **more: Any) -> Service:
    return Service(name=name, image=more.pop("image", "i"), port=more.pop("port", 6379), **more)


def app(*services: Service, entry: str = "web") -> Application:
    return application("app.toml", name="shop", entry=entry, services=services)


def place(described: Application, driver: Any) -> Mapping[str, Spec]:
    ports = {name: 20_000 + number for number, name in enumerate(sorted(described.services))}
    return placed(described, Spec(labels={"lab.run": "r"}), driver, ports, restart=Restart.DEFAULT)


def test_who_is_called_is_told_by_variables_and_where_there_are_no_names_by_an_address() -> None:
    described = app(
        service(
            "web", calls=("my-store",), environment={"URL": "redis://my-store:6379/0 x-my-store:6379 my-store:63790"}
        ),
        service("my-store", environment={"PAID": "$$5"}),
    )
    web = place(described, Named())["web"]
    assert dict(web.environment) == {
        "MY_STORE_HOST": "my-store",
        "MY_STORE_PORT": "6379",
        "URL": "redis://my-store:6379/0 x-my-store:6379 my-store:63790",
    }
    assert (web.alias, web.peers, web.labels["lab.run"]) == ("web", "app", "r")
    beside = place(
        app(
            described.services["my-store"],
            service("web", calls=("my-store",), command=("a", "my-store:6379", "${MY_STORE_PORT}")),
        ),
        Nameless(),
    )
    assert dict(beside["web"].environment) == {"MY_STORE_HOST": "10.0.2.2", "MY_STORE_PORT": "20000"}
    assert beside["web"].command == ("a", "10.0.2.2:20000", "20000")
    assert dict(beside["my-store"].environment) == {"PAID": "$5"}


@pytest.mark.parametrize("value", ["store", "store:1", "http://store", "http://store:81/x", "u:p@store"])
def test_a_name_alone_is_refused_where_there_are_no_names(value: str) -> None:
    described = app(service("web", environment={"TO": value}), service("store"))
    assert place(described, Named())["web"].environment["TO"] == value
    with pytest.raises(Unsupported, match=r"services\.web\.environment\.TO: 'store' stands there as a host"):
        place(described, Nameless())


@pytest.mark.parametrize("value", ["restore", "a store", "store-2:1", "/var/store", "store.example.org"])
def test_a_word_that_is_no_host_is_left_alone(value: str) -> None:
    assert (
        place(app(service("web", environment={"IS": value}), service("store")), Nameless())["web"].environment["IS"]
        == value
    )


def test_a_variable_that_tells_of_no_other_service_is_refused() -> None:
    with pytest.raises(BadInput, match=r"services\.web\.environment\.TO: \$\{WEB_HOST\}"):
        place(app(service("web", environment={"TO": "${WEB_HOST}"})), Named())


def test_a_driver_that_tells_no_addresses_is_left_out() -> None:
    with pytest.raises(Unsupported, match="fake does not tell"):
        place(app(service("web")), FakeDriver("", Context(run_dir=Path("a"), cache_dir=Path("b"))))


class Peered(FakeDriver):
    """The fake engine, whose instances are threads on the host's loopback. Those named in `broken` do not start; who
    was asked for is in `asked`, in that order."""

    broken: Sequence[str] = ()

    def __init__(self, variant: str, context: Context) -> None:
        super().__init__(variant, context)
        self.engine.features |= {Feature.PEERS, Feature.HOST_PIDS, Feature.RESTART}
        self.asked: list[str] = []

    def peer_address(self, spec: Spec, published: Endpoint) -> tuple[str, int]:
        return published.host, published.port

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        self.asked.append(spec.alias)
        if spec.alias in self.broken:
            raise LaunchError(f"{spec.alias} does not start")
        return super().launch(spec, endpoint, mark)


@pytest.fixture
def driver(tmp_path: Path) -> Peered:
    for name in ("run", "cache"):
        (tmp_path / name).mkdir()
    return Peered("", Context(run_dir=tmp_path / "run", cache_dir=tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "app.toml"
    path.write_text(
        'name = "shop"\nentry = "web"\n'
        f'[services.web]\nimage = "{OWN}"\nport = 8080\ndepends_on = {{ worker = "service_healthy" }}\n'
        f'[services.worker]\nimage = "{OWN}"\nport = 8081\ndepends_on = ["store"]\n'
        f'[services.store]\nimage = "{OWN}"\nport = 8082\nenvironment = {{ PASSWORD = "very secret" }}\n'
    )
    return str(path)


def test_each_service_is_asked_for_once_the_others_are_as_far_as_it_wants(
    measure: Measure, driver: Peered, file: str
) -> None:
    record = measure(AppBoot(file=file), driver, clock=driver.engine.clock, rounds=2)
    assert driver.asked == ["store", "worker", "web"] * 2
    assert {launch.outcome for launch in record.launches} == {Outcome.OK}
    assert [launch.facts["service"] for launch in record.launches] == ["web", "worker", "store"] * 2
    found = lanes(record, series_of(record))
    assert [(lane.service, lane.after, lane.n) for lane in found] == [
        ("store", "", 2),
        ("worker", "store", 2),
        ("web", "worker", 2),
    ]
    store, worker, web = found
    assert store.requested_s == 0 and worker.requested_s >= (store.started_s or 0) > 0
    assert web.requested_s >= worker.ready_s
    (total,) = (row for row in series_of(record) if row.metric == "app_boot_s")
    assert total.values[0] >= 3 * 0.06  # one after the other
    console = Console(width=100, record=True)
    console.print(render_run(record))
    assert "  web     worker " in console.export_text()
    assert "<td>worker</td>" in render(record)


def test_without_depends_on_all_are_asked_for_at_once(
    measure: Measure, driver: Peered, file: str, tmp_path: Path
) -> None:
    text = Path(file).read_text()
    kept = [line for line in text.splitlines() if not line.startswith("depends_on")]
    (tmp_path / "app.toml").write_text("\n".join(kept))
    record = measure(AppBoot(file=file), driver, clock=driver.engine.clock)
    after = {sample.dimensions["after"] for sample in record.samples if sample.dimensions.get("phase") == "requested"}
    assert after == {"nothing"}


@pytest.mark.parametrize("broken", ["store", "worker", "web"])
def test_a_service_that_fails_fails_the_whole_and_the_others_wait_no_longer(
    measure: Measure, driver: Peered, file: str, broken: str
) -> None:
    driver.broken = [broken]
    record = measure(AppBoot(file=file), driver, clock=driver.engine.clock)
    failed = [launch for launch in record.launches if launch.outcome is Outcome.FAILED]
    assert [(one.facts["service"], one.error) for one in failed] == [(broken, f"{broken} does not start")]
    assert len(record.launches) == 3
    assert not record.samples
    assert not driver.engine.instances
    assert driver.asked == ["store", "worker", "web"][: ["store", "worker", "web"].index(broken) + 1]


def test_an_interruption_ends_the_waiting_of_all(
    measure: Measure, driver: Peered, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, waited = launching.wait, []

    def wait(futures: Sequence[Any]) -> Any:
        waited.append(futures)
        if len(waited) == 1:
            raise KeyboardInterrupt
        return real(futures)

    monkeypatch.setattr(launching, "wait", wait)
    record = measure(AppBoot(file=file), driver, clock=driver.engine.clock)
    assert record.run.status is RunStatus.INTERRUPTED
    assert not driver.engine.instances
    assert not record.samples


def test_what_each_service_holds_is_the_whole(measure: Measure, driver: Peered, file: str) -> None:
    record = measure(AppMemory(file=file, settle=0), driver, clock=driver.engine.clock)
    values = {(s.metric, s.dimensions.get("service", "")): s.value for s in record.samples}
    parts = [values["service_pss_bytes", name] for name in ("web", "worker", "store")]
    assert all(parts) and sum(parts) == values["app_pss_bytes", ""]


def test_the_whole_answers_again_once_the_killed_service_is_back(measure: Measure, driver: Peered, file: str) -> None:
    record = measure(AppRecover(file=file, kill="web,store", within=10), driver, clock=driver.engine.clock)
    told = {sample.dimensions["killed"]: sample.value for sample in record.samples if sample.metric == "app_recovered"}
    absent = [sample.dimensions["why"] for sample in record.samples if sample.metric == "absent"]
    assert told.get("web") == 1.0
    # The fake engine's entry answers by itself: what no request passes through has a figure only by chance.
    assert told.get("store") == 1.0 or "does not pass through it" in absent[0]


def test_values_of_a_services_environment_are_kept_nowhere(measure: Measure, driver: Peered, file: str) -> None:
    class Telling(Peered):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            raise LaunchError(f"refused: {dict(spec.environment)}")

    telling = Telling("", Context(run_dir=Path(file).parent / "run", cache_dir=Path(file).parent / "cache"))
    record = measure(AppBoot(file=file), telling, clock=telling.engine.clock)
    assert any("refused" in launch.error for launch in record.launches)
    assert "very secret" not in str(record.to_json())


def test_an_application_is_described_by_one_file(file: str) -> None:
    with pytest.raises(BadInput, match="one file"):
        make_scenario("app-boot", {"file": file, "compose": file})
    with pytest.raises(BadInput, match="no service 'db'"):
        make_scenario("app-recover", {"file": file, "kill": "db"})
    with pytest.raises(BadInput, match="no application is named"):
        _ = AppBoot().application

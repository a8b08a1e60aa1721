"""What the plan tells a user before a run: how long, how much memory, and what it does to this machine."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from made_image import docker_archive, layer, member

from drivers.awslambda import CALLS_PER_WORKER
from lab.cli.main import main
from lab.cli.options import RunOptions
from lab.cli.start import Intent, _for_own_services, intent
from lab.driver import ANSWERS_AT, Context, Info
from lab.errors import BadInput
from lab.features import Feature
from lab.registry import make_scenario
from lab.run.estimate import Span
from lab.run.runner import Entrant
from lab.spec import OWN_IMAGE, Target
from lab.store.database import Store
from lab.store.record import Outcome, Run, RunStatus, TargetRecord, TimedRun
from lab.testing import FakeDriver
from lab.units import MIB


def intent_of(scenario: str, *targets: str, skipped: str = "", **parameters: str) -> Intent:
    """Of a run of a warm-up and two rounds."""
    options = RunOptions(targets=list(targets), rounds=2, warmup=1)
    run = Run(
        id="r1", scenario=scenario, started_at="", ended_at=None, status=RunStatus.RUNNING, owner="", lab_version="0"
    )
    return Intent(
        run=run,
        scenario=make_scenario(scenario, parameters),
        options=options,
        spec=options.spec({}),
        entrants=[
            Entrant(
                target=Target.parse(name),
                driver=None,
                info=None,
                record=TargetRecord(target=name, outcome=Outcome.SKIPPED if name == skipped else Outcome.OK),
            )
            for name in targets
        ],
        context=Context(run_dir=Path("/nowhere"), cache_dir=Path("/nowhere")),
    )


def test_a_boot_takes_what_its_launches_take() -> None:
    plan = intent_of("boot", "docker", "process", skipped="process")
    assert (plan.launches, plan.peak_memory_bytes) == (3, 128 * MIB)
    assert plan.likely == Span(pytest.approx(3.0), pytest.approx(3.0))
    assert plan.likely_by == "a guess, before the first such run here"
    [only] = plan.changes()
    assert "one at a time" in only


def test_earlier_runs_of_this_host_say_how_long_the_next_takes() -> None:
    plan = intent_of("boot", "docker", "process", "swarm", skipped="swarm")
    timed = TimedRun(
        parameters=plan.run.parameters, qualifiers={"docker": {}}, turns_s=[{"docker": 8.0}, {"docker": 2.0}]
    )
    assert replace(plan, earlier=[timed]).likely.most_s == pytest.approx(8 + 2 + 2 + 3 * 0.1)
    assert replace(plan, earlier=[timed]).likely_by == "by 1 earlier run here, with a guess for process"
    both = TimedRun(
        parameters=plan.run.parameters,
        qualifiers={"docker": {}, "process": {}},
        turns_s=[{"docker": 4.0, "process": 1.0}],
    )
    learnt = replace(plan, earlier=[both, timed, timed])
    assert learnt.likely_by == "by 1 to 3 earlier runs here"
    assert learnt.likely.most_s == pytest.approx(8 + 2 + 2 + 3 * 1.0)


def test_a_run_that_may_end_itself_is_likely_to_take_a_time_between_two() -> None:
    plan = intent_of("boot", "docker")
    assert replace(plan, options=RunOptions(targets=["docker"], until_ci="5%", warmup=1)).likely == Span(11.0, 161.0)
    assert replace(plan, options=RunOptions(targets=["docker"], max_time="5s", warmup=0)).likely == Span(6.0, 6.0)


def test_the_plan_says_where_instances_answer() -> None:
    plan = intent_of("boot", "docker", "kubernetes", "swarm", skipped="swarm")
    assert "on 127.0.0.1 only" in plan.changes()[0]
    for entrant in plan.entrants[1:]:
        facts = {ANSWERS_AT: "a port of every node (192.0.2.7)"}
        entrant.info = Info(engine="x", version="1", isolation="", features=frozenset(), facts=facts)
    told = plan.changes()[0]
    assert told.endswith("on 127.0.0.1, and kubernetes at a port of every node (192.0.2.7)")
    assert "swarm" not in told, "it is skipped"
    assert intent_of("boot", "docker", skipped="docker").changes() == []


def test_a_cluster_is_neither_small_nor_quick_and_the_plan_says_what_it_is() -> None:
    plan = intent_of("cluster", "kubernetes")
    assert plan.peak_memory_bytes > 1024 * MIB
    assert plan.likely.most_s > 3 * 60
    assert any("makes a cluster of its own in each round" in change for change in plan.changes())


@pytest.mark.parametrize(
    ("scenario", "parameters", "seconds"),
    [
        ("rollout", {"seconds": "20"}, 40.0),
        ("recover", {"within": "60"}, 60.0),
        ("density", {"max": "8", "settle": "2"}, 40.0),
    ],
)
def test_windows_and_waits_are_in_the_likely_time(scenario: str, parameters: dict[str, str], seconds: float) -> None:
    plan = intent_of(scenario, "process", **parameters)
    assert seconds * 3 < plan.likely.most_s < seconds * 3 + 10


@pytest.mark.parametrize(
    ("scenario", "given", "rounds"),
    [
        ("boot", {}, (10, 1)),
        ("surface", {}, (1, 0)),
        ("containment", {}, (3, 0)),
        ("containment", {"rounds": 7}, (7, 0)),
        ("surface", {"warmup": 2}, (1, 2)),
        ("surface", {"until_ci": "5%"}, (160, 0)),
    ],
)
def test_a_run_that_is_not_told_how_many_rounds_has_those_that_its_scenario_asks_for(
    scenario: str, given: dict[str, object], rounds: tuple[int, int]
) -> None:
    with intent(make_scenario(scenario), RunOptions(targets=["process"], **given), {}) as planned:
        plan = planned.options.plan(seed=1)
        assert (plan.rounds, plan.warmup) == rounds
        assert planned.run.parameters["warmup"] == rounds[1]  # what a report shows


@pytest.mark.parametrize("scenario", ["surface", "hostkernel", "containment", "neighbour", "overhead", "rollout"])
def test_an_image_that_the_scenario_cannot_ask_is_bad_input(scenario: str) -> None:
    options = RunOptions(targets=["process"], image="nginx:alpine")
    with (
        pytest.raises(BadInput, match="leave out --image") as raised,
        intent(make_scenario(scenario), options, {}),
    ):
        pass
    assert "nginx:alpine" in raised.value.brief


@pytest.mark.parametrize(
    ("exposed", "given", "port", "named"),
    [
        ((), None, 8080, ""),
        ((6379,), None, 6379, ""),
        ((80, 443), None, 80, "asks the service at port 80; the image exposes 80, 443: --port chooses"),
        ((80, 443), 443, 443, "asks the service at port 443; the image exposes 80, 443"),
    ],
)
def test_the_port_that_an_image_exposes_is_asked_and_of_several_the_plan_names_all(
    monkeypatch: pytest.MonkeyPatch, exposed: tuple[int, ...], given: int | None, port: int, named: str
) -> None:
    monkeypatch.setattr("lab.cli.start.exposed_ports", lambda *_, **__: exposed)
    options = RunOptions(targets=["process"], image="somebody/else", port=given)
    with intent(make_scenario("boot"), options, {}) as planned:
        assert planned.spec.port == planned.run.parameters["port"] == port
        told = [change for change in planned.changes() if "exposes" in change]
        assert len(told) == bool(named) and all(named in one for one in told)


def test_what_is_waited_for_is_a_condition_of_the_run_and_a_credential_is_kept_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive([layer(member("f"))]))
    headers = (("Host", "shop.test"), ("Authorization", "Bearer secret"))
    given = {"ready_status": ((200, 200), (300, 399)), "header": headers}
    options = RunOptions(targets=["process"], image=str(path), **given)
    with intent(make_scenario("boot"), options, {}) as planned:
        assert planned.spec.ready_headers == headers
        spec = planned.run.parameters["spec"]
        assert spec["ready_status"] == "200,300-399"
        assert spec["ready_headers"] == ["Host: shop.test", "Authorization"]
        assert "secret" not in json.dumps(planned.run.parameters)
    with intent(make_scenario("boot"), RunOptions(targets=["process"]), {}) as usual:
        assert not {"ready", "ready_status", "ready_headers"} & set(usual.run.parameters["spec"])


def test_a_file_that_is_no_image_ends_the_command_in_one_line_before_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.tar"
    bad.write_bytes(b"no image")
    store = tmp_path / "lab.db"
    monkeypatch.setattr(
        sys, "argv", ["lab", "run", "boot", "-t", "process", "--image", str(bad), "--store", str(store)]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.splitlines()[0].startswith(f"lab: {bad} is not a readable image archive")
    with Store.open(str(store)) as opened:
        assert opened.runs() == []


def test_the_plan_names_the_image_and_where_it_is_taken_from(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive([layer(member("f"))]))
    options = RunOptions(targets=["process"], image=str(path))
    with intent(make_scenario("boot"), options, {}) as plan:
        assert plan.image is not None
        digest = plan.image.digest.removeprefix("sha256:")
        assert f"takes the image {path} ({digest[:12]}) from the file {path}" in plan.changes()


@pytest.mark.parametrize(
    ("scenario", "given", "calls"),
    [
        ("coldstart", {"warm": "49"}, 0),
        ("coldstart", {"warm": "50"}, 101),
        ("wake", {"answers": "100"}, 0),
        ("wake", {"answers": "101"}, 101),
    ],
)
def test_more_calls_of_one_worker_than_are_to_be_compared_are_bad_input_before_anything_is_launched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenario: str, given: dict[str, str], calls: int
) -> None:
    made = FakeDriver("", Context(run_dir=tmp_path, cache_dir=tmp_path))
    made.engine.features = frozenset({Feature.NETWORK, Feature.FUNCTION, Feature.SLEEP})
    made.engine.calls_per_worker = CALLS_PER_WORKER
    monkeypatch.setattr("lab.cli.start.make_driver", lambda *_: made)
    with intent(make_scenario(scenario, given), RunOptions(targets=["lambda"]), {}) as planned:
        (entrant,) = planned.entrants
    assert entrant.bad_input == bool(calls) == (not entrant.running)
    assert not made.engine.instances
    if calls:
        told = f"{scenario} would make {calls} calls of one worker, and at most 100 are to be compared on fake"
        assert entrant.record.reason.startswith(told) and "\n" not in entrant.record.reason
        assert entrant.record.remedy == f"lower -p {next(iter(given))}=…"
        made.engine.calls_per_worker = None
        with intent(make_scenario(scenario, given), RunOptions(targets=["lambda"]), {}) as planned:
            assert planned.entrants[0].running, "where nothing is known of it, nothing is refused"


def _entered(target: str, *features: Feature, **facts: object) -> Entrant:
    info = Info(engine="x", version="1", isolation="", features=frozenset(features), facts=facts)
    record = TargetRecord(target=target, outcome=Outcome.OK)
    return Entrant(target=Target.parse(target), driver=None, info=info, record=record)


BROUGHT = {"guest-image": "disk.qcow2", "sha256": "0" * 64}


def test_what_has_a_service_of_its_own_is_the_image_and_gets_the_memory_of_a_whole_system() -> None:
    disk = _entered("libvirt:disk", Feature.OWN_SERVICE, guest_image={})
    asked = RunOptions(targets=["libvirt:disk"], driver_options=BROUGHT)
    options = _for_own_services(asked, make_scenario("boot"), [disk])
    spec = options.spec({})
    assert (spec.image, spec.builtin, spec.ready_path, spec.memory_bytes) == (OWN_IMAGE, False, "/", 1024 * MIB)
    named = RunOptions(targets=["libvirt:disk"], memory="256M", image="mine:1", driver_options=BROUGHT)
    assert _for_own_services(named, make_scenario("boot"), [disk]) == named
    small = RunOptions(targets=["libvirt:disk"], memory="256M", driver_options=BROUGHT)
    assert _for_own_services(small, make_scenario("boot"), [disk]).memory == 256 * MIB
    beside = _for_own_services(asked, make_scenario("boot"), [disk, _entered("docker")])
    assert beside.own_service, "the others launch the lab's"
    with pytest.raises(BadInput, match="surface asks the lab's own service, which libvirt:disk does not launch"):
        _for_own_services(asked, make_scenario("surface"), [disk])


def test_a_disk_image_that_no_target_boots_is_refused() -> None:
    asked = RunOptions(targets=["docker", "process"], driver_options=BROUGHT)
    with pytest.raises(BadInput, match="--guest-image: none of docker, process boots a disk image"):
        _for_own_services(asked, make_scenario("boot"), [_entered("docker"), _entered("process")])
    one = [_entered("docker"), _entered("libvirt:debian-cloud", guest_image={})]
    assert _for_own_services(asked, make_scenario("boot"), one) == asked


def test_a_connection_alone_shows_nothing_of_the_labs_own_service() -> None:
    asked = RunOptions(targets=["docker", "libvirt:debian-cloud"], ready="tcp", driver_options=BROUGHT)
    with pytest.raises(BadInput, match="speaks HTTP"):
        _for_own_services(asked, make_scenario("boot"), [_entered("libvirt:debian-cloud", guest_image={})])
    disk = _entered("libvirt:disk", Feature.OWN_SERVICE, guest_image={})
    assert _for_own_services(asked, make_scenario("boot"), [disk]).image == OWN_IMAGE

"""From a user's options to a run: resolve, ask the engines, show the plan, run."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

from lab import __version__
from lab.cli.options import DEFAULT_STATUS, OWN_MEMORY_BYTES, ROUNDS, WARMUP, RunOptions
from lab.driver import ANSWERS_AT, LACKS, Context, Driver, Info, say_nothing
from lab.errors import BadInput, DriverError, DriverUnavailable, LabError, Unsupported
from lab.features import Coldable, Feature, HasNodes
from lab.host.cold import cold_label, make_cold, require_cold
from lab.host.facts import Steal, host_facts, host_identity
from lab.host.noise import host_warnings
from lab.host.ownership import Owner
from lab.image.exposed import exposed_ports
from lab.image.source import Source, find, look, origin_of
from lab.registry import driver_names, make_driver
from lab.run.company import Company
from lab.run.estimate import Expected, Span, expected
from lab.run.runner import Entrant, Progress, Runner, info_json, new_run_id, now_iso
from lab.scenario import Brings, CallsAgain, Makes, Needs, OwnService, Paced, Scenario, Sized, Takes, exceeding_calls
from lab.spec import OWN_IMAGE, SERVICE_IMAGE, Ready, Spec, Target, UserUnit
from lab.store.database import Store
from lab.store.digest import digests
from lab.store.place import RunDir, beating, cache_dir, make_run_dir
from lab.store.record import Outcome, Run, RunStatus, TargetRecord, TimedRun
from lab.timeline import Timeline

_LIKELY_S = {
    "process": 0.1,
    "oci": 0.3,
    "nspawn": 0.3,
    "lxc": 0.3,
    "bwrap": 0.1,
    "docker": 1.0,
    "swarm": 2.0,
    "libvirt": 6.0,
    "kubernetes": 7.0,
}
"""A launch with its removal, roughly, on the slow machines of this project's tests; the plan says 'likely'."""


_OF_A_SERVICE = frozenset(
    {"image", "unit", "copies", "port", "ready", "ready_path", "ready_status", "header", "command", "env", "memory"}
)
"""Options that describe the one service which most scenarios launch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A run about to start: who takes part, and what it will do to this machine."""

    run: Run
    scenario: Scenario
    options: RunOptions
    spec: Spec
    entrants: Sequence[Entrant]
    context: Context
    exposed: Sequence[int] = ()
    image: Source | None = None
    image_problem: str = ""
    earlier: Sequence[TimedRun] = ()

    @property
    def launches(self) -> int:
        """The most launches that there can be."""
        turns = sum(self._nodes_of(entrant) for entrant in self.entrants if entrant.running)
        return self._launches_per_round() * turns * self._rounds()

    @property
    def peak_memory_bytes(self) -> int:
        """The declared memory of all the instances that live at the same time, and what the scenario makes beside."""
        made = self.scenario.memory_bytes if isinstance(self.scenario, Makes) else 0
        least = [int(one.info.facts.get("least_memory_bytes", 0)) for one in self.entrants if one.info and one.running]
        if isinstance(self.scenario, Brings):
            each = [one.memory_bytes for one in self.scenario.services(self.spec).values()]
            return sum(max(declared, *least, 0) for declared in each) + made
        return max(self.options.memory, *least, 0) * self.at_once + made

    @property
    def turns(self) -> Mapping[str, Expected]:
        """How long each target's turns take: by the `earlier` runs of this host, or a guess where there are none."""
        return {
            str(entrant.target): self._learnt(entrant) or self._guessed(entrant)
            for entrant in self.entrants
            if entrant.running
        }

    @property
    def likely(self) -> Span:
        """How long the measuring takes by that."""
        turns = self.turns
        return self.options.plan(0).estimate(turns).left(turns)

    @property
    def likely_by(self) -> str:
        """Where `likely` comes from, in words."""
        runs = {target: found.runs for target, found in self.turns.items()}
        counts = sorted({count for count in runs.values() if count})
        if not counts:
            return "a guess, before the first such run here"
        number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        by = f"by {number} earlier run{'s' if counts[-1] > 1 else ''} here"
        guessed = [target for target, count in runs.items() if not count]
        return f"{by}, with a guess for {', '.join(guessed)}" if guessed else by

    def learn(self, store: Store) -> Intent:
        """This intent, with the `earlier` runs of this host that the store has. Raises StoreError."""
        return replace(self, earlier=store.timed(self.scenario.name, Owner.current().host()))

    def _learnt(self, entrant: Entrant) -> Expected | None:
        qualifiers = entrant.info.qualifiers if entrant.info is not None else {}
        like = self.run.parameters
        found = expected(str(entrant.target), qualifiers=qualifiers, like=like, runs=self.earlier)
        return found if found.runs else None

    def _guessed(self, entrant: Entrant) -> Expected:
        beside = self.scenario.likely_s_per_round if isinstance(self.scenario, Takes) else 0.0
        launch_s = _LIKELY_S.get(entrant.target.driver, 5.0)
        if entrant.info is not None:
            launch_s = float(entrant.info.facts.get("likely_s", launch_s))
        seconds = (launch_s * self._launches_per_round() + beside) * self._nodes_of(entrant)
        return Expected(first_s=seconds, later_s=seconds)

    def changes(self) -> list[str]:
        """What the run does to this machine, in words."""
        if not any(entrant.running for entrant in self.entrants):
            return []
        count = "one at a time" if self.at_once == 1 else f"up to {self.at_once} at a time"
        beyond = [
            f"{entrant.target} at {entrant.info.facts[ANSWERS_AT]}"
            for entrant in self.entrants
            if entrant.running and entrant.info is not None and entrant.info.facts.get(ANSWERS_AT)
        ]
        where = f"on 127.0.0.1, and {', '.join(beyond)}" if beyond else "on 127.0.0.1 only"
        found = [f"starts and removes instances of the service, {count}, {where}"]
        if len(self.exposed) > 1:
            named = ", ".join(map(str, self.exposed[:8])) + (", …" if len(self.exposed) > 8 else "")
            found.append(f"asks the service at port {self.spec.port}; the image exposes {named}: --port chooses")
        if (unit := self.spec.unit) is not None:
            files = f" and {len(unit.copies)} of your files or folders" if unit.copies else ""
            found.append(f"puts the unit {unit.name}{files} into each guest")
        elif self.spec.image not in (SERVICE_IMAGE, OWN_IMAGE):
            found.append(self._image_line())
        if isinstance(self.scenario, Makes):
            found.append(self.scenario.changes)
        if isinstance(self.scenario, Brings):
            found += self.scenario.told()
        if self.options.cold:
            found.append("drops this machine's page cache before each launch: everything else gets slower for a while")
        return found

    @property
    def at_once(self) -> int:
        """The most instances alive at the same time."""
        return self.scenario.at_once if isinstance(self.scenario, Sized) else 1

    def _image_line(self) -> str:
        if self.image is not None:
            digest = self.image.digest.removeprefix("sha256:")[:12]
            return f"takes the image {self.image.reference} ({digest}) from {self.image.origin}"
        if self.image_problem:
            return f"has no image {self.spec.image}: {self.image_problem}"
        try:
            origin = origin_of(self.spec.image, self.context)
        except LabError as error:
            return f"has nowhere to take the image {self.spec.image} from: {error.brief}"
        return f"asks {origin} for the image {self.spec.image}, and has it pulled if need be"

    def _launches_per_round(self) -> int:
        return self.scenario.launches if isinstance(self.scenario, Sized) else 1

    def _nodes_of(self, entrant: Entrant) -> int:
        """How often a turn of it is measured: once, or once on each of its nodes."""
        if not self.options.each_node or not isinstance(entrant.driver, HasNodes):
            return 1
        try:
            return max(1, len(entrant.driver.nodes()))
        except DriverError:  # the run tells
            return 1

    def _rounds(self) -> int:
        return self.options.most_rounds + self.options.warmup_rounds


@contextmanager
def intent(
    scenario: Scenario,
    options: RunOptions,
    driver_options: Mapping[str, str],
    say: Callable[[str], None] = say_nothing,
) -> Iterator[Intent]:
    """Resolve the targets and ask their engines; the run's own directory lives as long as this context.

    `say` tells the user what takes long before anything is measured. Raises BadInput for a target that does not exist,
    for what is no image, for one that this host does not run or that the scenario can do nothing with. An engine
    that is not there becomes a skipped target, and so does one for which the user's input is bad: the others go on.
    """
    if isinstance(scenario, OwnService) and not options.own_service:
        raise BadInput(
            f"{scenario.name} asks the lab's own service, and '{options.unit or options.image}' is another",
            resolution="leave out --unit" if options.unit else "leave out --image",
        )
    if isinstance(scenario, Brings):
        _require_described(scenario, options)
    options = options.paced(*(scenario.rounds, scenario.warmup) if isinstance(scenario, Paced) else (ROUNDS, WARMUP))
    exposed: Sequence[int] = ()
    if options.image != SERVICE_IMAGE:
        exposed = exposed_ports(options.image, docker_host=driver_options.get("docker-host", ""))
    options = options.listening_at(exposed)
    targets = options.parsed_targets()
    run_id = new_run_id()
    labels = {"lab.run": run_id, "lab.scenario": scenario.name, "lab.owner": str(Owner.current())}
    run_dir = make_run_dir(run_id, labels)
    try:
        context = Context(run_dir=run_dir, cache_dir=cache_dir(), options=driver_options, say=say)
        spec = options.spec(labels)
        entrants = [_enter(target, context, scenario, spec) for target in targets]
        _require_nodes(options, entrants)
        options = _for_own_services(options, scenario, entrants)
        spec = options.spec(labels)
        seed = options.seed if options.seed is not None else secrets.randbits(32)
        image, problem = _image(spec, context, entrants, look)
        host = host_identity()
        run = Run(
            id=run_id,
            scenario=scenario.name,
            started_at=now_iso(),
            ended_at=None,
            status=RunStatus.RUNNING,
            owner=labels["lab.owner"],
            lab_version=__version__,
            host_id=host.id,
            host_name=host.name,
            parameters={
                **options.model_dump(
                    exclude={"unit", "copies", "env", "seed", "param", "ready", "ready_status", "header", "require"}
                ),
                "scenario": asdict(scenario) if is_dataclass(scenario) else {},
                **({"nodes": "each"} if options.each_node else {}),
                "seed": seed,
                "spec": _specs_json(scenario, spec),
            },
        )
        with beating(run_dir):
            yield Intent(
                run=run,
                scenario=scenario,
                options=options,
                spec=spec,
                entrants=entrants,
                context=context,
                exposed=exposed,
                image=image,
                image_problem=problem,
            )
    finally:
        RunDir(str(run_dir), labels).delete()


def _require_nodes(options: RunOptions, entrants: Sequence[Entrant]) -> None:
    """Raises BadInput where each node is asked for, and no target that is there has any."""
    there = [entrant.info for entrant in entrants if entrant.info is not None and entrant.running]
    if options.each_node and there and not any(Feature.NODES in info.features for info in there):
        raise BadInput(
            f"nodes=each: none of {', '.join(options.targets)} has nodes of which one could be chosen",
            resolution="name a target that has, such as kubernetes",
        )


def _require_described(scenario: Scenario, options: RunOptions) -> None:
    """Raises BadInput where the services that `scenario` brings are not described, or not by their file alone."""
    if given := sorted(_OF_A_SERVICE & options.model_fields_set):
        raise BadInput(
            f"{scenario.name} launches what its file describes: --{given[0].replace('_', '-')} is no part of that",
            resolution="write it into the file",
        )
    if isinstance(scenario, Brings):
        scenario.services(options.spec({}))


def _for_own_services(options: RunOptions, scenario: Scenario, entrants: Sequence[Entrant]) -> RunOptions:
    """`options`, where all that is launched has a service of its own: that is the image, and where the user names none,
    it is given more memory than the lab's own service. Raises BadInput where nobody boots the
    disk image that is named, or the scenario asks the lab's own service."""
    if "guest-image" in options.driver_options and all(
        entrant.info is not None and "guest_image" not in entrant.info.facts for entrant in entrants
    ):
        raise BadInput(
            f"--guest-image: none of {', '.join(options.targets)} boots a disk image",
            resolution="name one that does, such as libvirt:disk; see `lab targets`",
        )
    able = [entrant for entrant in entrants if entrant.info is not None]
    own = bool(able) and all(entrant.info and Feature.OWN_SERVICE in entrant.info.features for entrant in able)
    if not options.own_service or not own:
        if options.ready is Ready.TCP and options.own_service:
            raise BadInput("--ready tcp: the lab's own service speaks HTTP, and shows by its nonce who answers")
        return options
    if isinstance(scenario, OwnService):
        raise BadInput(
            f"{scenario.name} asks the lab's own service, which {', '.join(options.targets)} does not launch",
            resolution="name another target",
        )
    memory = options.memory if "memory" in options.model_fields_set else OWN_MEMORY_BYTES
    return options.model_copy(update={"image": OWN_IMAGE, "memory": memory})


def company_of(intent: Intent, *, wait: bool, on_wait: Callable[[str], None]) -> Company:
    """The other runs on the engines that take part."""
    drivers = [entrant.driver for entrant in intent.entrants if entrant.driver is not None and entrant.running]
    return Company(drivers, intent.run.id, wait=wait, on_wait=on_wait)


def execute(
    intent: Intent,
    store: Store,
    progress: Progress,
    company: Company | None = None,
    *,
    on_launch: Callable[[str, int, bool, Timeline], None] | None = None,
) -> RunStatus:
    """Run `intent`, one launch at a time; `on_launch` as of a `Runner`. Raises StoreError, and BadInput where `--cold`
    cannot be had."""
    steal = Steal()
    steal.start()
    facts = host_facts(paths={"store": Path(str(store)).parent} if str(store).startswith("/") else {})
    facts["warnings"] = [asdict(warning) for warning in host_warnings(facts)]
    plan = intent.options.plan(intent.run.parameters["seed"])
    if intent.options.cold:
        _refuse_cold_among_others(intent.context)
        plan = replace(plan, before_launch=_make_cold, dimensions={"cache": cold_label(facts)})
    image = intent.image
    if image is None:
        image, _ = _image(intent.spec, intent.context, intent.entrants, find)
    runner = Runner(
        run=intent.run,
        scenario=intent.scenario,
        entrants=intent.entrants,
        spec=intent.spec,
        plan=plan,
        store=store,
        host=facts,
        progress=progress,
        image=image,
        steal=steal,
        company=company,
        expected=intent.turns,
        on_launch=on_launch,
    )
    return runner.execute()


def _enter(target: Target, context: Context, scenario: Scenario, spec: Spec) -> Entrant:
    driver: Driver | None = None
    info: Info | None = None
    try:
        driver = make_driver(target, context)
    except DriverError as error:
        return Entrant(target=target, driver=None, info=None, record=_skipped(target, None, error))
    try:
        info = driver.info()
        missing = scenario.requires - info.features
        if missing:
            lacks: Mapping[str, str] = info.facts.get(LACKS) or {}
            whys = [lacks[feature.value] for feature in sorted(missing) if feature.value in lacks]
            told = f"{scenario.name} needs {', '.join(sorted(missing))}, which {target} has not"
            raise Unsupported(": ".join([told, *(["; ".join(whys)] if whys else [])]))
        if spec.unit is not None and Feature.UNITS not in info.features:
            raise Unsupported(
                f"{target} has no systemd of its own, which would run {spec.unit.name}",
                resolution="leave it out; libvirt:debian and libvirt:debian-cloud have one",
            )
        if isinstance(scenario, CallsAgain) and (why := exceeding_calls(info, scenario.calls_per_worker)):
            raise BadInput(f"{scenario.name} would make {why}", resolution=f"lower -p {scenario.calls_by}=…")
        if isinstance(scenario, Needs):
            scenario.look()
        if isinstance(scenario, Brings):
            scenario.specs(spec, driver)
    except LabError as error:
        record = _skipped(target, info, error)
        return Entrant(target=target, driver=driver, info=info, record=record, bad_input=isinstance(error, BadInput))
    record = TargetRecord(target=str(target), outcome=Outcome.OK, info=info_json(info))
    return Entrant(target=target, driver=driver, info=info, record=record)


def _image(
    spec: Spec, context: Context, entrants: Sequence[Entrant], how: Callable[..., Source | None]
) -> tuple[Source | None, str]:
    """Where the user's image is, for all targets of this host; a foreign cluster's nodes pull theirs for themselves.

    Where it cannot be had, that is told, and each target tells it as it prepares. Raises BadInput for what no target
    could run.
    """
    here = any(entrant.running and entrant.info and Feature.HOST_PIDS in entrant.info.features for entrant in entrants)
    if spec.image in (SERVICE_IMAGE, OWN_IMAGE) or not here:
        return None, ""
    try:
        return how(spec.image, context, command=spec.command), ""
    except DriverError as error:
        return None, str(error)


def _skipped(target: Target, info: Info | None, error: LabError) -> TargetRecord:
    return TargetRecord(
        target=str(target), outcome=Outcome.SKIPPED, reason=error.brief, remedy=error.resolution, info=info_json(info)
    )


def _make_cold(driver: Driver, spec: Spec) -> Mapping[str, Any]:
    if not isinstance(driver, Coldable):
        raise Unsupported(f"{driver.name} does not tell which files a launch reads, so none can be called cold")
    return {"cold": make_cold(driver.launch_files(spec)).to_json()}


def _refuse_cold_among_others(context: Context) -> None:
    """Every engine of this host is asked, since dropping its cache slows all of them. Raises BadInput."""
    require_cold()
    others: list[str] = []
    for name in driver_names():
        with contextlib.suppress(DriverUnavailable), contextlib.closing(make_driver(Target(name), context)) as driver:
            if isinstance(driver, Coldable):
                others += [f"{name} runs {other}" for other in driver.others_running()]
    if others:
        raise BadInput(
            f"--cold would slow what is not the lab's: {'; '.join(others)}",
            resolution="stop that first, or leave --cold",
        )


def _ready_json(spec: Spec) -> dict[str, Any]:
    """What else was asked for, where it is not the usual. A header may be a credential: of all but Host the name
    alone is kept."""
    found: dict[str, Any] = {} if spec.ready is Ready.HTTP else {"ready": str(spec.ready)}
    if spec.ready_status != DEFAULT_STATUS:
        found["ready_status"] = ",".join(
            str(low) if low == high else f"{low}-{high}" for low, high in spec.ready_status
        )
    if spec.ready_headers:
        found["ready_headers"] = [
            f"{name}: {value}" if name.lower() == "host" else name for name, value in spec.ready_headers
        ]
    return found


def _unit_json(unit: UserUnit) -> dict[str, Any]:
    """What it was, without its words."""
    digest = hashlib.sha256(unit.text.encode()).hexdigest()
    return {"name": unit.name, "sha256": digest, "copies": [f"{path}:{to}" for path, to in unit.copies]}


def _specs_json(scenario: Scenario, spec: Spec) -> dict[str, Any]:
    if isinstance(scenario, Brings):
        return {"services": {name: _spec_json(one) for name, one in scenario.services(spec).items()}}
    return _spec_json(spec)


def _spec_json(spec: Spec) -> dict[str, Any]:
    return {
        "image": spec.image,
        **({"unit": _unit_json(spec.unit)} if spec.unit is not None else {}),
        "port": spec.port,
        "ready_path": spec.ready_path,
        **_ready_json(spec),
        "command": list(spec.command) if spec.command else None,
        "environment": digests(spec.environment),
        "cpus": spec.cpus,
        "memory_bytes": spec.memory_bytes,
        "pids": spec.pids,
        "scratch_bytes": spec.scratch_bytes,
    }

"""Are bursts of heavy work better done by the service itself, or by something that comes for them?

One target is the *service*: the one of `service`, else the only one that is no function. It answers a steady open-loop
load of `rate` requests of /healthz a second, and gets bursts of jobs: `ms` of CPU time each (as the service itself takes
it), while `mib` MiB are held. Who does the jobs is the *arrangement*:

- `within`: the service's own instance, in processes of its own beside the one that answers;
- `beside`: a second instance of the same target, which is always there (both in the turn of the service's target);
- `function`: a function's workers, which come by call and go when nobody calls (in the turn of `lambda`, `socket` or
  `knative`);
- `woken`: `guests` instances that were saved to files, which are woken for it and saved again after it (in the turn of
  each other target whose instances can be saved).

In each arrangement the service and the other half are launched once, and then each size of `bursts`, in an order by
chance, has its turn: the tandem is at rest (no worker, guests saved); `before` seconds without jobs; a burst, whose
pause is told as `long`; and for each pause of `pause`, in an order by chance, that pause and another burst; at last
`after` seconds without jobs.

| metric | start | end | unit |
|---|---|---|---|
| `last_job_s` (`arrangement`, `burst`, `pause`) | just before the first of the burst's connections; of guests just before the first is asked to wake | the last of its jobs has its whole answer; absent where one failed | s |
| `first_job_s`, `half_job_s` (likewise) | the same | the first of its jobs, and half of them (rounded up), have theirs | s |
| `jth_job_s` (`j`, likewise) | the same | j of its jobs have theirs | s |
| `job_cpu_s` (likewise) | the job's process begins | it has done its work: its own CPU time by its own clock, the burst's median | s |
| `steady_p99_s`, `steady_worst_s` (`window`, likewise) | the instant at which a request of the steady load was to be sent | its whole answer: the quantile, and the longest, of a window's requests | s |

| metric | what it is | unit |
|---|---|---|
| `unserved_requests`, `late_share` (`window`, likewise) | of a window's requests: without an answer of success; during which the client was itself late | requests, share |
| `cold_starts` (likewise) | workers never seen before that are there after the burst, or guests that were woken for it | starts |
| `failed_jobs` (likewise) | jobs without an answer that says that they were done; the reasons are among the launch's facts | jobs |
| `held_bytes` (`at`, likewise) | PSS summed over all host processes of the service and the other half: `peak` is the most that was seen from the burst's begin to just after its end; `after` what is held `after` seconds after the last burst of its size, `before` just before the first | bytes |
| `mean_held_bytes` (likewise) | the same from the pause's begin to its burst's end, each look counting until the next | bytes |
| `saved_bytes` (`arrangement`, `burst`) | blocks on disk of saved guests' files, at the same instant as `after` | bytes |
| `save_s` (likewise) | how long it took to save what had been woken, after the burst's last job | s |
| `engine_pss_bytes` (`process`) | fixed cost: daemons of both engines by PSS, before anything is launched in the turn | bytes |
| `job_steps` | steps of arithmetic of one job, the same for all of a run | steps |
| `looks`, `look_share` (`arrangement`) | how often memory was looked at, and what share of the time that took | looks, share |

`window` is `before` (the `before` seconds), `during` (from the burst's begin until its last job is done or has failed, and
at least until as many requests were due as a p99 needs, though not into the next burst) or `after` (what is left of the
`after` seconds then). `before` and `after` are of a `burst` whatever the pause.

- A job is a fixed number of steps, so that all arrangements do the same work. The first service that a run launches says
  how many are `ms` of its CPU time; on a slower (virtual) CPU a job takes more.
- One instance of the service works at 16 jobs at a time, each in a process, and none waits: one more is refused, a failed
  job. So is one whose memory would not fit. What a function's platform takes at a time it says itself (a fact).
- At rest is proven: a function has no worker, and the burst's are counted by names that are never used twice; a saved
  guest's processes are gone, and what is woken of it has the token of before (docs/method.md, rule 23).
- A pause is counted from the last job's answer to the next burst's begin. Guests are saved within it, and where that
  takes longer, so does the pause.
- The steady load's client runs in real time where it may; a window in which it was late for more than 5 % of its requests
  has no p99 (docs/method.md, rule 18). p99s are of one window in one round, and never averaged or pooled.
- Memory is looked at in turn by a thread of the lab's, which takes at most a fifth of the time while jobs are done and
  a twentieth else, and once more at the end of each burst: a peak between two looks is not seen.
- What is better from which burst and which pause on is computed when shown, by rounds (docs/tandem.md).
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from lab.errors import BadInput, Unsupported
from lab.features import EngineOnThisHost, Feature
from lab.figures.evidence import Seen, tell
from lab.figures.series import ABSENT
from lab.figures.tandem import LONG
from lab.host import procs
from lab.host.memory import held_on_disk, standing
from lab.launch.session import Session
from lab.scenario import Bench
from lab.service.ask import SPARE_BYTES
from lab.service.load import Client, start_load
from lab.units import MIB, parse_seconds
from scenarios.tandem import steady
from scenarios.tandem.arrangement import Arrangement, Name, arranged
from scenarios.tandem.burst import Burst, Job, step_s
from scenarios.tandem.holding import Holding
from scenarios.tandem.steady import Window

P99_REQUESTS = 400
"""So many requests are due in a window that is to have a p99; 368 are needed, and the client may miss a few."""

_MOST_JOBS = 64
_MOST_CPU_S = 60.0
_WARM_S = 0.3
_OVER_S = 30.0
_OPEN = 8
_TIMEOUT_S = 5.0
_SIZES: dict[tuple[str, int], int] = {}
"""The steps of a job, by run and ms: the same in all its rounds."""

Seconds = Annotated[float, BeforeValidator(parse_seconds)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tandem:
    """Bursts of so many jobs, named with commas between them, each after a long pause and after each of `pause`
    in seconds, on the target `service` and on what is in tandem with it."""

    service: Annotated[str, Field(max_length=100)] = ""
    rate: Annotated[int, Field(ge=50, le=5000)] = 500
    bursts: Annotated[str, Field(pattern=r"^\d{1,2}(,\d{1,2}){0,7}$")] = "1,4,16"
    pause: Annotated[str, Field(pattern=r"^(\d{1,3}(\.\d{1,2})?(,\d{1,3}(\.\d{1,2})?){0,3})?$")] = "1"
    ms: Annotated[int, Field(ge=1, le=5000)] = 50
    mib: Annotated[int, Field(ge=0, le=1024)] = 0
    before: Annotated[Seconds, Field(ge=0.2, le=60)] = 1.0
    after: Annotated[Seconds, Field(ge=0.2, le=600)] = 2.0
    within: Annotated[Seconds, Field(gt=0, le=60)] = 30.0
    guests: Annotated[int, Field(ge=1, le=8)] = 1

    name: ClassVar[str] = "tandem"
    question: ClassVar[str] = "Are bursts of heavy work better done by the service, or by what comes for them?"
    headline: ClassVar[str] = "last_job_s"
    own_service: ClassVar[bool] = True
    requires: ClassVar[frozenset[Feature]] = frozenset({Feature.NETWORK})
    calls_by: ClassVar[str] = "pause"

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if any(not 1 <= size <= _MOST_JOBS for size in self.sizes) or len(set(self.sizes)) < len(self.sizes):
            raise ValueError(f"bursts are different numbers from 1 to {_MOST_JOBS}, such as 1,4,16")
        if max(self.sizes) * self.ms / 1000 > _MOST_CPU_S:
            raise ValueError(f"the largest burst times ms is at most {_MOST_CPU_S:g} s of CPU time")
        if self.likely_s_per_round * self.rate > 100_000:
            raise ValueError("a round would be of more than 100,000 requests: lower rate, pause or bursts")
        return self

    @property
    def sizes(self) -> list[int]:
        return [int(number) for number in self.bursts.split(",")]

    @property
    def gaps(self) -> list[float]:
        return [float(number) for number in self.pause.split(",") if number]

    @property
    def launches(self) -> int:
        return max(3, 1 + self.guests)  # the service twice and its second instance, or the service and guests

    @property
    def at_once(self) -> int:
        return 1 + max(*self.sizes, self.guests)  # a function may have a worker for each job

    @property
    def calls_per_worker(self) -> int:
        return 1 + len(self.gaps)  # of a platform that gives one worker one job at a time: one in each burst

    @property
    def likely_s_per_round(self) -> float:
        waits = self.before + self.after + sum(self.gaps) + 2 * _WARM_S
        jobs_s = [self.ms / 1000 * size for size in self.sizes]
        return len(self.sizes) * waits + (1 + len(self.gaps)) * sum(jobs_s)

    def measure(self, bench: Bench) -> None:
        service = self._service(bench)
        if self.mib * MIB > bench.spec.memory_bytes - SPARE_BYTES:
            room = (bench.spec.memory_bytes - SPARE_BYTES) // MIB
            raise BadInput(
                f"tandem: a job of {self.mib} MiB fits in no instance, whose memory has room for {room} MiB of jobs",
                resolution=f"give --memory {self.mib + SPARE_BYTES // MIB}M, or a lower -p mib=…",
            )
        _emit_engines(bench, service)
        for name in self._arrangements(bench, service):
            with service.session() as served, arranged(bench, served, name, guests=self.guests) as arrangement:
                _Turn(self, bench, served, arrangement).run()

    def _service(self, bench: Bench) -> Bench:
        """The bench of the target that is the service. Raises BadInput where it is not to be told or not there,
        Unsupported where it has been given up in the course of the run."""
        benches = {one.spec.labels.get("lab.target", ""): one for one in (bench, *bench.others())}
        if self.service:
            if self.service in benches:
                return benches[self.service]
            raise _absent_service(
                bench,
                f"the service is to be {self.service}, which is none of the targets that run",
                "name one of -t that works here: -p service=TARGET",
            )
        able = [name for name, one in benches.items() if Feature.FUNCTION not in one.info.features]
        if len(able) > 1:
            raise BadInput(
                f"tandem: which target is the service, {', '.join(able)}?", resolution=f"give -p service={able[0]}"
            )
        if not able:
            why = "no target that runs can be the service, which is no function"
            raise _absent_service(bench, why, "add one to -t, such as docker")
        return benches[able[0]]

    def _arrangements(self, bench: Bench, service: Bench) -> list[Name]:
        """Those of this target's turn, in this round's order."""
        if bench is service:
            names = [Name.WITHIN, Name.BESIDE]
            bench.random().shuffle(names)
            return names
        if Feature.FUNCTION in bench.info.features:
            return [Name.FUNCTION]
        if Feature.SLEEP in bench.info.features:
            return [Name.WOKEN]
        raise Unsupported("it is neither the service, nor a function, nor can its instances be saved and woken")


@plain_dataclass(slots=True)
class _Turn:
    """One arrangement in one round, all being launched."""

    plan: Tandem
    bench: Bench
    served: Session
    arrangement: Arrangement
    windows: list[Window] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)

    def run(self) -> None:
        """Emit all. Raises DriverError, MeasurementError."""
        plan, bench = self.plan, self.bench
        job = Job(steps=_steps(bench, self.served, plan.ms), mib=plan.mib)
        bench.emit("job_steps", job.steps, "steps")
        chance = bench.random()
        sizes, gaps = plan.sizes, plan.gaps
        chance.shuffle(sizes)
        with self._load() as load, Holding([self.served, *self.arrangement.parts], bench.clock) as holding:
            load.prefer()
            for size in sizes:
                chance.shuffle(gaps)
                self._size(job, size, gaps, holding)
            bench.clock.sleep(_WARM_S)  # for what is under way at the end of the last window
            found = load.stop()
        steady.emit(bench, found, self.windows)
        self._emit_looks(holding)
        tell(bench, Seen.OUTSIDE, f"{self.arrangement.name}: jobs at a time", self.arrangement.limit)
        if self.failed:
            told = [f"{count} times {why}" for why, count in self.failed.items()]
            self.served.beside["failed_jobs"] = told
            tell(bench, Seen.OUTSIDE, f"{self.arrangement.name}: failed jobs", ", ".join(sorted(self.failed)))

    def _load(self) -> Client:
        instance = self.served.instance
        assert instance is not None and instance.endpoint is not None  # noqa: S101  its target has the feature
        plan = self.plan
        return start_load(
            instance.endpoint,
            rate=plan.rate,
            seconds=min(200_000 / plan.rate, self._most_s()),
            open_first=_OPEN,
            nonce=self.served.spec.nonce,
            timeout_s=_TIMEOUT_S,
        )

    def _most_s(self) -> float:
        """How long all of it may take: each burst as long as is waited for its jobs, and time for what rests."""
        plan = self.plan
        bursts = len(plan.sizes) * (1 + len(plan.gaps))
        return plan.likely_s_per_round + bursts * plan.within + len(plan.sizes) * _OVER_S

    def _size(self, job: Job, size: int, gaps: Sequence[float], holding: Holding) -> None:
        plan, bench = self.plan, self.bench
        about = {"arrangement": self.arrangement.name.value, "burst": str(size)}
        self.arrangement.to_rest()
        bench.clock.sleep(_WARM_S)
        self._quiet("before", plan.before, about)
        if holding.whole and (look := holding.look()) is not None:
            bench.emit("held_bytes", look.pss_bytes, "bytes", at="before", **about)
        ended_ns = self._burst(job, size, {**about, "pause": LONG}, holding, None)
        for gap in gaps:
            since_ns = ended_ns
            left_s = gap - (bench.clock.now_ns() - ended_ns) / 1e9
            bench.clock.sleep(max(0.0, left_s))
            self._cut(bench.clock.now_ns())
            ended_ns = self._burst(job, size, {**about, "pause": f"{gap:g}"}, holding, since_ns)
        self._await_window()
        self._quiet("after", plan.after - (bench.clock.now_ns() - ended_ns) / 1e9, about)
        if holding.whole and (look := holding.look()) is not None:
            bench.emit("held_bytes", look.pss_bytes, "bytes", at="after", **about)
        if files := self.arrangement.files():
            bench.emit("saved_bytes", held_on_disk(files), "bytes", **about)

    def _quiet(self, name: str, seconds: float, about: dict[str, str]) -> None:
        """A window without jobs, from here on."""
        begun_ns = self.bench.clock.now_ns()
        self.bench.clock.sleep(max(0.0, seconds))
        told = {**about, "window": name}
        self.windows.append(Window(begun_ns=begun_ns, ended_ns=self.bench.clock.now_ns(), told=told))

    def _burst(self, job: Job, size: int, about: dict[str, str], holding: Holding, since_ns: int | None) -> int:
        """One burst; the instant of its end, in ns. `since_ns` is when the pause before it began."""
        bench = self.bench
        holding.busy = True
        found = self.arrangement.burst(job, size, timeout_s=self.plan.within)
        looked = holding.look() if holding.whole else None
        holding.busy = False
        starts = self.arrangement.cold_starts()
        least_ns = found.begun_ns + P99_REQUESTS * 1_000_000_000 // self.plan.rate
        told = {**about, "window": "during"}
        self.windows.append(Window(begun_ns=found.begun_ns, ended_ns=max(found.ended_ns, least_ns), told=told))
        saving_ns = bench.clock.now_ns()
        self.arrangement.settle()
        if self.arrangement.name is Name.WOKEN:
            bench.emit("save_s", (bench.clock.now_ns() - saving_ns) / 1e9, "s", **about)
        self._emit_jobs(found, size, about)
        bench.emit("cold_starts", starts, "starts", **about)
        if looked is not None:
            peak = holding.peak(found.begun_ns, looked.at_ns)
            bench.emit("held_bytes", peak or looked.pss_bytes, "bytes", at="peak", **about)
            mean = holding.mean(since_ns, looked.at_ns) if since_ns is not None else None
            if mean is not None:
                bench.emit("mean_held_bytes", mean, "bytes", **about)
        return found.ended_ns

    def _cut(self, now_ns: int) -> None:
        """The window of the burst before ends where the next begins."""
        last = self.windows[-1]
        if last.ended_ns > now_ns:
            self.windows[-1] = Window(begun_ns=last.begun_ns, ended_ns=now_ns, told=last.told)

    def _await_window(self) -> None:
        left_s = (self.windows[-1].ended_ns - self.bench.clock.now_ns()) / 1e9
        self.bench.clock.sleep(max(0.0, left_s))

    def _emit_jobs(self, found: Burst, size: int, about: dict[str, str]) -> None:
        bench = self.bench
        seconds = found.seconds()
        for j, one_s in enumerate(seconds, 1):
            bench.emit("jth_job_s", one_s, "s", j=str(j), **about)
        half = (size + 1) // 2
        if seconds:
            bench.emit("first_job_s", seconds[0], "s", **about)
            bench.emit("job_cpu_s", statistics.median(found.cpu_s), "s", **about)
        if len(seconds) >= half:
            bench.emit("half_job_s", seconds[half - 1], "s", **about)
        if len(seconds) == size:
            bench.emit("last_job_s", seconds[-1], "s", **about)
        else:
            of = " ".join(["last_job_s", *(f"{key}={value}" for key, value in about.items())])
            why = ", ".join(f"{count} of {size} jobs: {why}" for why, count in found.reasons.items())
            bench.emit(ABSENT, 1, "", of=of, why=why)
        bench.emit("failed_jobs", size - len(seconds), "jobs", **about)
        for why, count in found.reasons.items():
            self.failed[why] = self.failed.get(why, 0) + count

    def _emit_looks(self, holding: Holding) -> None:
        bench, about = self.bench, {"arrangement": self.arrangement.name.value}
        if not holding.whole:
            why = "not all of its processes are this host's"
            bench.emit(ABSENT, 1, "", of=f"held_bytes arrangement={about['arrangement']}", why=why)
            return
        bench.emit("looks", len(holding.looks), "looks", **about)
        bench.emit("look_share", holding.share(), "", **about)


def _absent_service(bench: Bench, why: str, remedy: str) -> BadInput | Unsupported:
    """What a user is to mend before anything was measured; later the service was given up, and the run goes on."""
    begun = any(run == bench.spec.labels.get("lab.run", "") for run, _ in _SIZES)
    return Unsupported(why, resolution=remedy) if begun else BadInput(f"tandem: {why}", resolution=remedy)


def _steps(bench: Bench, served: Session, ms: int) -> int:
    """The steps of a job: as many as take `ms` in the first service that this run launched."""
    key = bench.spec.labels.get("lab.run", ""), ms
    if key not in _SIZES:
        _SIZES[key] = max(1, round(ms / 1000 / step_s(served)))
    return _SIZES[key]


def _emit_engines(bench: Bench, service: Bench) -> None:
    found: dict[str, int] = {}
    for one in dict.fromkeys((bench, service)):
        driver = one.driver
        if isinstance(driver, EngineOnThisHost):
            names = procs.present(driver.engine_pids())
            held = standing(names)
            sums: dict[str, int] = {}
            for process, holding in held.items():
                sums[names[process]] = sums.get(names[process], 0) + holding.pss_bytes
            found |= sums
    for daemon, value in found.items():
        bench.emit("engine_pss_bytes", value, "bytes", process=daemon)

"""Functions by the AWS Lambda API: on an emulator of the lab's own, or on an endpoint that the user names."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from drivers.awslambda import images, options, server
from drivers.awslambda.api import NAME_PREFIX, REQUEST_MOST_BYTES, Api, Listed
from drivers.awslambda.emulator import MINISTACK, install, program_of
from drivers.awslambda.function import Function
from drivers.awslambda.workers import LABELS, Events, Workers
from drivers.dockerapi import cold, daemon, ports, surroundings
from drivers.dockerapi.client import is_local, is_podman, is_remote, reached
from drivers.dockerapi.connection import Connection
from lab.driver import Context, Info, Instance, Leftover, Mark, bears
from lab.errors import BadInput, DriverError, DriverUnavailable, LaunchError
from lab.features import CallPhase, Feature
from lab.image.process import surroundings as describe
from lab.spec import Endpoint, Spec
from lab.timeline import Phase, Source
from lab.units import MIB

CALLS_PER_WORKER = 100
"""After so many calls a worker is to be replaced: the emulator reads its whole log at each."""
TIMEOUT_S = 60
_LISTENS_AT = 8000  # inside: 8080 is RIE's
_LEAST_MIB = 128
_MORE = "MiniStack hands Docker no such limit"
_FIXED = {
    "Pending": "0.5 s, whatever the image: calls made meanwhile run, so that no figure holds it",
    "InProgress": "0.5 s after each change; waited for before the next call, untimed",
    "Architectures": "0.25 s more for each worker where a function declares one; the lab declares none",
    "idle workers": "looked for every 30 s, so that one goes up to 30 s after its time",
}
_NOT_MEASURED = "Init Duration, Billed Duration and Max Memory Used are the emulator's inventions, and not shown"
_FEATURES = frozenset(
    {Feature.NETWORK, Feature.FUNCTION, Feature.SLEEP, Feature.HOST_PIDS, Feature.ENGINE_PIDS}
    | {Feature.COLD, Feature.STORAGE}
)


class LambdaDriver:
    """One endpoint of the Lambda API whose workers are containers of this host's Docker engine.

    By default the lab's own: a MiniStack server for each run, found again by its environment and removed with the run.
    The option `lambda-endpoint` names another.
    """

    name = "lambda"

    def __init__(self, variant: str, context: Context) -> None:
        if variant:
            raise BadInput(f"'lambda' has no variant '{variant}'", resolution="write 'lambda'")
        self._context = context
        self._connection = Connection(context)
        self._docker = self._connection.api
        self._workers = Workers(self._docker)
        self._events = Events(self._docker, self._workers)
        self._apis: dict[str, Api] = {}
        self._images: dict[str, str] = {}

    @classmethod
    def variants(cls) -> Mapping[str, str]:
        """The one there is."""
        return {"": "a function by the AWS Lambda API, on an emulator whose workers are containers"}

    def info(self) -> Info:
        """What the endpoint is, and what the Docker engine below it. Raises DriverUnavailable with the remedy, and
        Unsupported for a cloud that the options do not allow."""
        chosen = options.read(self._context.options)
        own = not chosen.endpoint
        if own:
            _require_boto3()
        else:
            self._api(chosen.endpoint).look()
        with reached(self._context, "ask the engine what it is"):
            told = self._docker().info()
        self._require_here(told)
        features = _FEATURES if told.get("Driver") == "overlay2" else _FEATURES - {Feature.COLD, Feature.STORAGE}
        product, version = (f"MiniStack {MINISTACK}", MINISTACK) if own else _product(chosen.endpoint)
        shown = product.rpartition(".")[0] if own else product
        runtime = str(told.get("DefaultRuntime", "runc"))
        return Info(
            engine="Lambda contract on MiniStack" if own else f"Lambda contract on {product}",
            version=version,
            isolation=f"namespaces ({runtime})",
            features=features,
            facts={
                "endpoint": chosen.endpoint or "the lab's own, on 127.0.0.1, one for each run",
                "installed": program_of(self._context.cache_dir).exists() if own else None,
                "docker": told["ServerVersion"],
                "runtime": "the Runtime Interface Emulator, which starts the runtime at the first call",
                "keep_alive_s": chosen.keep_alive_s if own else None,
                "workers_at_most": "as many as half of this host's memory has room for" if own else None,
                "calls_per_worker": CALLS_PER_WORKER,
                "calls_per_worker_why": "warm calls take longer as a worker's log grows, which is read at each",
                "fixed_waits": _FIXED if own else {},
                "claims": _NOT_MEASURED if own else "what the endpoint says of durations is not shown",
                "limits": _limits(own=own),
                "surroundings": describe(
                    rlimits="the engine's own: MiniStack hands it none",
                    seccomp=surroundings.seccomp(told),
                    names="the host's",
                    **({} if own else {"tmp": "not known: the endpoint's own"}),
                ),
            },
            qualifiers={"platform": f"Lambda contract on {shown}"},
        )

    def prepare(self, spec: Spec) -> None:
        """Install what is missing, load the image, start the server. Raises BadInput, Unsupported, DriverError."""
        chosen = options.read(self._context.options)
        if not chosen.endpoint:
            install(self._context)
        self._images[spec.image] = images.provide(self._context, spec)
        api = self._api(self._url(spec))
        api.look()  # the server loads what it needs at the first question
        self._events.connect(spec.labels.get("lab.run", ""))  # here, so that no launch pays for it

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:  # noqa: ARG002  the server's own
        """Create the function and its URL; it answers at the endpoint's own address, by its name. Raises LaunchError
        after removing what it had made."""
        if spec.image not in self._images:
            self.prepare(spec)
        api, launch = self._api(self._url(spec)), spec.labels.get("lab.launch", "")
        name = f"{NAME_PREFIX}{launch}"
        environment = {
            **spec.service_environment(host="127.0.0.1", port=_LISTENS_AT),
            LABELS: json.dumps(dict(spec.labels)),
        }

        def seen(_worker: str, phase: CallPhase, _source: str) -> None:
            if phase is CallPhase.STARTED:  # of the first; no later one is of the launch
                mark(Phase.STARTED, source=Source.EVENT)
                self._events.forget(spec.labels, seen)

        function = self._function(name, spec.labels, None, environment, api)
        try:
            self._events.watch(spec.labels, seen)
            api.create(name, **_settings(spec, self._images[spec.image], environment))
            mark(Phase.CREATED, source=Source.RETURN)
            function.endpoint = api.make_url(name)
        except BaseException as error:
            problem = ""
            try:
                function.delete()
            except DriverError as failed:
                problem = f"not cleaned up: {failed}"
            if isinstance(error, DriverError):
                error.details = "\n".join(filter(None, [error.details, problem]))
                if not isinstance(error, LaunchError | DriverUnavailable):
                    raise LaunchError(error.brief, details=error.details, resolution=error.resolution) from error
            raise
        return function

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Instance]:
        """Every function of the lab's on servers of its own and on the user's endpoint, and what a dead server's
        functions have left running."""
        found: dict[str, Function] = {}
        for api, functions in self._listed(labels):
            for name, own, environment in functions:
                if bears(own, labels) and "lab.launch" in own:
                    found[name] = self._function(name, own, api.url_of(name), environment, api)
        for worker in self._workers.find(labels):
            name = f"{NAME_PREFIX}{worker.labels.get('lab.launch', '')}"
            if name not in found:
                found[name] = self._function(name, worker.labels, None, {}, None)
        return list(found.values())

    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Leftover]:
        """Servers of the lab's, also where there is no Docker engine any more, and images."""
        running: list[Leftover] = list(server.servers(labels))
        try:
            return [*running, *images.remnants(self._docker(), labels)]
        except DriverUnavailable:
            if running:
                return running
            raise

    def launch_files(self, spec: Spec) -> Sequence[Path]:
        """The layers' directories, and the programs that the engine starts. Raises DriverError."""
        if spec.image not in self._images:
            self.prepare(spec)
        return cold.launch_files(self._docker(), self._images[spec.image], "runc")

    def others_running(self) -> Sequence[str]:
        """The names of running containers that are no worker of the lab's."""
        names = cold.others_running(self._docker())
        mine = {f"{worker.id}" for worker in self._workers.find({})}
        api = self._docker()
        return [name for name in names if api.inspect_container(name)["Id"] not in mine]

    def engine_pids(self) -> Mapping[int, str]:
        """The Docker engine's daemons, and the servers of this lab's run."""
        return {**daemon.engine_pids(self._docker()), **server.engine_pids(self._run_labels())}

    def close(self) -> None:
        """Close the event stream and the connections."""
        self._events.close()
        for api in self._apis.values():
            api.close()
        self._apis.clear()
        self._connection.close()
        self._events = Events(self._docker, self._workers)

    def _run_labels(self) -> dict[str, str]:
        return {"lab.run": self._context.run_dir.name}

    def _require_here(self, told: Mapping[str, Any]) -> None:
        """Raises DriverUnavailable where workers would be another machine's, or their ports elsewhere."""
        api = self._docker()
        if is_podman(api):
            raise DriverUnavailable("workers need Docker, and Podman answers", resolution="give -o docker-host")
        if is_remote(api) or not is_local(api, told):
            raise DriverUnavailable(
                "this Docker engine is another machine's, and publishes workers on that machine's loopback only",
                resolution="run the lab on that machine, or leave DOCKER_HOST unset",
            )
        ports.look(api, dict(told), local=True, bridged=True)

    def _url(self, spec: Spec) -> str:
        chosen = options.read(self._context.options)
        return chosen.endpoint or server.provide(self._context, spec, chosen.keep_alive_s).url

    def _api(self, url: str) -> Api:
        if url not in self._apis:
            self._apis[url] = Api(url)
        return self._apis[url]

    def _listed(self, labels: Mapping[str, str]) -> Iterator[tuple[Api, list[Listed]]]:
        """What the servers list that may have functions with `labels`, and the user's endpoint; another lab's server
        may end at any time."""
        shared = {key: value for key, value in labels.items() if key not in ("lab.target", "lab.launch")}
        for one in server.servers(shared):
            if not one.await_answer():
                continue
            try:
                yield self._api(one.url), list(self._api(one.url).functions())
            except DriverUnavailable:
                if one.process.alive():
                    raise
        if endpoint := options.read(self._context.options).endpoint:
            yield self._api(endpoint), list(self._api(endpoint).functions())

    def _function(
        self,
        name: str,
        labels: Mapping[str, str],
        endpoint: Endpoint | None,
        environment: Mapping[str, str],
        api: Api | None,
    ) -> Function:
        return Function(
            name,
            labels=labels,
            endpoint=endpoint,
            environment=environment,
            api=api,
            docker=self._docker,
            workers=self._workers,
            events=self._events,
        )


def _settings(spec: Spec, image: str, environment: Mapping[str, str]) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "Code": {"ImageUri": image},
        "Timeout": TIMEOUT_S,
        "MemorySize": max(_LEAST_MIB, -(-spec.memory_bytes // MIB)),
        "Environment": {"Variables": dict(environment)},
        "Tags": dict(spec.labels),
    }
    if spec.command is not None:
        settings["ImageConfig"] = {"Command": list(spec.command)}
    return settings


def _limits(*, own: bool) -> dict[str, str]:
    if not own:
        return dict.fromkeys(("memory", "swap", "cpus", "pids"), "not set: the endpoint's own, by MemorySize alone")
    return {
        "memory": "set by the engine, for all workers of a server",
        "swap": f"not set: {_MORE}, so that as much swap as memory may come on top",
        "cpus": f"not set: {_MORE}",
        "pids": f"not set: {_MORE}",
        "request": f"{REQUEST_MOST_BYTES} bytes, refused beyond: the emulator cuts a longer one short and says nothing",
    }


def _require_boto3() -> None:
    from drivers.awslambda.errors import INSTALL

    try:
        import boto3  # noqa: F401
    except ImportError as error:
        raise DriverUnavailable("boto3 is not installed", details=str(error), resolution=INSTALL) from error


def _product(endpoint: str) -> tuple[str, str]:
    """What an endpoint of a user's says that it is, and its version; else its address."""
    import httpx

    for path, name in (("_ministack", "MiniStack"), ("_localemu", "LocalEmu"), ("_localstack", "LocalStack")):
        with suppress(httpx.HTTPError, ValueError):
            told = httpx.get(f"{endpoint.rstrip('/')}/{path}/health", timeout=5.0, trust_env=False)
            if told.status_code == httpx.codes.OK and isinstance(body := told.json(), dict):
                version = str(body.get("version", ""))
                return f"{name} {version}".strip(), version or "unknown"
    host, port = options.address_of(endpoint)
    return f"{host}:{port} at {platform.node()}" if host == "localhost" else f"{host}:{port}", "unknown"

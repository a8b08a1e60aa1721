"""The lab's own clusters of kind's: made once and used again, until `lab cluster down`.

A cluster is the lab's when its nodes bear the label `lab.cluster`, given in the creating call, and is whole when it
has the ConfigMap `stratalab`, written last. While it is being made a record beside it names its maker, so that
`lab clean` finds what a maker that died has begun; a whole cluster has no record and is nobody's leftover.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lab
from drivers.kubernetes.cluster import makers
from drivers.kubernetes.cluster.kind import (
    CLUSTER_LABEL,
    Kind,
    anew,
    check_name,
    cluster_config,
    pool_ports,
    read_config,
)
from drivers.kubernetes.cluster.node_image import require_runnable
from drivers.kubernetes.connection.client import Api, Json, connect
from drivers.kubernetes.connection.errors import translated
from drivers.kubernetes.objects.labels import MANAGED_BY, owner_labels, owner_of
from drivers.kubernetes.objects.status import condition
from lab.driver import bears
from lab.errors import BadInput, CleanupError, DriverError, DriverUnavailable, LabError
from lab.host.ownership import Owner, owner_alive

CONFIG_MAP = "stratalab"
SYSTEM = "kube-system"

_OF_A_RUN = re.compile(r"stratalab-[0-9a-f]{12}")
_NODE_TIMEOUT_S = 180.0
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Cluster:
    """A whole cluster of the lab's: its name, its API, and what it was made with. `uid` tells it from one that had
    its name before."""

    name: str
    uid: str
    api: Api
    ports: Mapping[int, int]
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A cluster that was begun and never came to be whole, or one that a run made for itself."""

    id: str
    labels: Mapping[str, str]
    clusters: Clusters
    kind: str = "cluster"

    def delete(self) -> None:
        """Remove its nodes and its record. Raises CleanupError."""
        self.clusters.delete(self.id)


class Clusters:
    """The kind clusters that this user's lab made. `cache_dir` outlives runs."""

    def __init__(self, cache_dir: Path) -> None:
        self._directory = cache_dir / "kind"

    def open(self, name: str) -> Cluster:
        """The whole cluster `name`, its API answering. Raises DriverUnavailable, DriverError."""
        kind = Kind.find()
        if name not in kind.clusters():
            raise DriverUnavailable(f"there is no kind cluster '{name}'", resolution="lab cluster up")
        if self._record(name) is not None:
            raise DriverUnavailable(f"the kind cluster '{name}' is not finished", resolution=anew(name))
        with translated(f"reach the cluster '{name}'", DriverUnavailable):
            api = connect(kubeconfig=kind.kubeconfig(name))
            try:
                found = api.found(api.core.read_namespaced_config_map, CONFIG_MAP, SYSTEM)
                if found is None:
                    _require_ours(api, name, DriverUnavailable)
                    raise DriverUnavailable(f"the kind cluster '{name}' is not finished", resolution=anew(name))
            except BaseException:
                api.close()
                raise
        try:
            told = json.loads(found["data"]["cluster"])
            ports = {int(at): int(host) for at, host in told["ports"].items()}
            return Cluster(name, str(found["metadata"]["uid"]), api, ports, told["facts"])
        except (KeyError, TypeError, ValueError) as error:
            api.close()
            raise DriverUnavailable(
                f"the kind cluster '{name}' does not tell what it was made with: its ConfigMap was changed",
                details=str(found),
                resolution=anew(name),
            ) from error

    def up(
        self, name: str, *, image: str, config: Path | None, say: Callable[[str], None], workers: int = 0
    ) -> Mapping[str, Any]:
        """Make the cluster `name`, unless it is there. Returns its facts.

        Raises BadInput where it is there with another node image, config or number of workers; DriverError.
        """
        given = read_config(config) if config is not None else None
        kind = Kind.find()
        if check_name(name) in kind.clusters():
            record = self._record(name)
            if record is None:
                with_facts = self.open(name)
                with_facts.api.close()
                _require_same(with_facts, image, given, workers)
                say(f"the cluster '{name}' is there")
                return with_facts.facts
            if owner_alive(record) is not False:
                raise DriverUnavailable(
                    f"another process is making the cluster '{name}', or did and is out of sight",
                    resolution="wait for it, or `lab cluster down` if it is dead",
                )
            say(f"removing what was begun of the cluster '{name}'")
            self.delete(name)
        require_runnable(kind, image=image, config=given)
        say(f"making the cluster '{name}' with kind {kind.version()}; this takes a minute")
        labels = {"lab.run": f"cluster-{name}", "lab.scenario": "cluster up", "lab.owner": str(Owner.current())}
        ports = pool_ports()
        cluster = cluster_config(name, given, labels=owner_labels(labels), workers=workers)
        try:
            api = self.create(name, cluster, image=image, labels=labels)
            try:
                say("waiting until its nodes are ready")
                facts: dict[str, Any] = {"cluster": name, "kind": kind.version(), "node_image": image or None}
                facts["nodes"] = [node["metadata"]["name"] for node in await_nodes(api)]
                facts["kind_config"] = given
                facts["workers"] = workers
                facts["ports"] = f"127.0.0.1:{min(ports.values())}-{max(ports.values())}"
                _write_config_map(api, ports, facts)
            finally:
                api.close()
        except BaseException:
            self.delete(name)
            raise
        self._record_path(name).unlink()
        return facts

    def create(self, name: str, config: Json, *, image: str, labels: Mapping[str, str]) -> Api:
        """Make a cluster from `config`, recorded under `labels` until `delete`. Returns its API, which answers.

        Raises DriverError; what was begun stays recorded, to be removed by `delete`.
        """
        import yaml

        kind = Kind.find()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._record_path(name).write_text(json.dumps(dict(labels)))
        path = self._directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        kind.create(name, config=path, image=image, kubeconfig=self.kubeconfig_path(name))
        return connect(kubeconfig=kind.kubeconfig(name))

    def delete(self, name: str) -> None:
        """Remove the cluster `name`, whole or not, and what is kept beside it. Idempotent. Raises CleanupError."""
        try:
            kind = Kind.find()
        except DriverUnavailable as error:
            raise CleanupError(error.brief, resolution=error.resolution) from error
        makers.end(name)
        kind.delete(name, kubeconfig=self.kubeconfig_path(name))
        for path in (self.kubeconfig_path(name), self._directory / f"{name}.yaml", self._record_path(name)):
            path.unlink(missing_ok=True)

    def down(self, name: str) -> bool:
        """Remove the cluster `name`; whether there was one. Raises BadInput where it is not the lab's; DriverError."""
        kind = Kind.find()
        if name not in kind.clusters():
            self.delete(name)
            return False
        if self._record(name) is None and not self._directory.joinpath(f"{name}.yaml").exists():
            api = connect(kubeconfig=kind.kubeconfig(name))
            try:
                with translated(f"look whose the cluster '{name}' is"):
                    _require_ours(api, name, BadInput)
            finally:
                api.close()
        self.delete(name)
        return True

    def unfinished(self, labels: Mapping[str, str]) -> Sequence[Unfinished]:
        """Clusters with a record that bears `labels`, and those of a run whose record is gone: `kind` can have made
        nodes after its lab was killed and what it had begun was removed."""
        records = {path.stem: self._record(path.stem) for path in sorted(self._directory.glob("*.json"))}
        try:
            kind = Kind.find()
            lost = [name for name in kind.clusters() if _OF_A_RUN.fullmatch(name) and name not in records]
            records |= {name: _whose(kind, name) for name in lost}
        except DriverUnavailable:  # what is recorded is known all the same
            pass
        return [Unfinished(name, of, self) for name, of in records.items() if of is not None and bears(of, labels)]

    def kubeconfig_path(self, name: str) -> Path:
        """Where kind writes the cluster's kubeconfig, so that the user's own stays as it is."""
        return self._directory / f"{name}.kubeconfig"

    def _record_path(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def _record(self, name: str) -> dict[str, str] | None:
        try:
            found = json.loads(self._record_path(name).read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            found = None
        return found if isinstance(found, dict) else {"lab.run": name}  # its maker died while it wrote


def name_of_a_run(launch: str) -> str:
    """The name of a cluster that a run makes for itself, of its label `lab.launch`."""
    return f"stratalab-{launch[:12]}"


def await_nodes(api: Api) -> list[Json]:
    """All nodes, once all are ready. Raises DriverError."""
    deadline = time.monotonic() + _NODE_TIMEOUT_S
    while True:
        with translated("list its nodes"):
            nodes: list[Json] = api.call(api.core.list_node).get("items") or []
        if nodes and all(_usable(node) for node in nodes):
            return nodes
        if time.monotonic() > deadline:
            raise DriverError(
                f"the cluster's nodes are not ready within {_NODE_TIMEOUT_S:g} s",
                details=json.dumps([node.get("status", {}).get("conditions") for node in nodes], indent=1),
                resolution="see `kind export logs`",
            )
        time.sleep(_LOOK_EVERY_S)


def _usable(node: Json) -> bool:
    """Whether it is ready, and the taint that kept pods away until then is gone, which takes a moment longer."""
    taints = {taint.get("key") for taint in (node.get("spec") or {}).get("taints") or ()}
    return condition(node, "Ready") == "True" and "node.kubernetes.io/not-ready" not in taints


def _whose(kind: Kind, name: str) -> dict[str, str] | None:
    """The labels of a cluster without a record: of the `kind` that makes it now, else as its nodes have them. None
    where it is not the lab's, or is whole; one that does not answer was left half made."""
    for maker in makers.find(name):
        owner = replace(Owner.current(), pid=maker.process.pid, start_ticks=maker.process.started_ticks)
        return {"lab.run": name, "lab.owner": str(owner)}
    try:
        with translated(f"look whose the cluster '{name}' is", DriverUnavailable):
            api = connect(kubeconfig=kind.kubeconfig(name))
            try:
                nodes = api.call(api.core.list_node).get("items") or ()
                whole = api.found(api.core.read_namespaced_config_map, CONFIG_MAP, SYSTEM)
            finally:
                api.close()
    except DriverUnavailable:
        return {"lab.run": name}
    told = [node["metadata"].get("labels") or {} for node in nodes]
    if whole or any(labels.get(CLUSTER_LABEL) != name for labels in told):
        return None
    return owner_of(told[0]) if told else {"lab.run": name}


def _require_ours(api: Api, name: str, kind: type[LabError]) -> None:
    nodes = api.call(api.core.list_node).get("items") or ()
    if not all((node["metadata"].get("labels") or {}).get(CLUSTER_LABEL) == name for node in nodes):
        raise kind(
            f"the kind cluster '{name}' is not the lab's",
            resolution=f"give the lab's another name: --driver-option kind-cluster=NAME; or use --context kind-{name}",
        )


def _write_config_map(api: Api, ports: Mapping[int, int], facts: Mapping[str, Any]) -> None:
    told = {"ports": {str(at): host for at, host in ports.items()}, "facts": dict(facts)}
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIG_MAP, "labels": {**MANAGED_BY, "stratalab/version": lab.__version__}},
        "data": {"cluster": json.dumps(told)},
    }
    with translated("note what the cluster was made with"):
        api.call(api.core.create_namespaced_config_map, SYSTEM, body)


def _require_same(cluster: Cluster, image: str, config: Json | None, workers: int) -> None:
    had = int(cluster.facts.get("workers") or 0)
    if workers and workers != had:
        raise BadInput(
            f"the cluster '{cluster.name}' was made with {had or 'no'} workers, not {workers}",
            resolution=anew(cluster.name),
        )
    made_with = cluster.facts.get("node_image")
    if config is not None and config != cluster.facts.get("kind_config"):
        raise BadInput(f"the cluster '{cluster.name}' was made with another kind config", resolution=anew(cluster.name))
    if image and made_with != image:
        raise BadInput(
            f"the cluster '{cluster.name}' was made with the node image {made_with}, not {image}",
            resolution=anew(cluster.name),
        )

"""The program `kind`: its calls, its config, and its errors."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from drivers.kubernetes.objects.manifests import PORTS
from lab.errors import BadInput, CleanupError, DriverError, DriverUnavailable

POOL = 32
FIRST_NODE_PORT = 30_000
"""The nodes' side of the pool: in the static band of the default NodePort range, from which Kubernetes gives out no
port by itself (KEP-3668: 30000 to 30085)."""
FIRST_HOST_PORT = 32_600
"""This host's side: above what the lab reserves for other targets, below what the kernel hands out by itself."""
DEFAULT_NAME = "stratalab"
CLUSTER_LABEL = "lab.cluster"
"""The label of every node of a cluster of the lab's; its value is the cluster's name."""

_LOOPBACK = "127.0.0.1"
_ASK_TIMEOUT_S = 60.0
_CREATE_TIMEOUT_S = 900.0
_DELETE_TIMEOUT_S = 180.0
_LOAD_TIMEOUT_S = 600.0
_NODE_TIMEOUT_S = 60.0
_GET_KIND = "install it: https://kind.sigs.k8s.io (in Debian 13: sudo apt-get install kind), then: lab cluster up"
_COMMAND = re.compile(r'command ".*?" failed', re.DOTALL)
_RUN = re.compile(r'command "\S+ run ')
_NODE = re.compile(r"\b([a-z0-9][a-z0-9.-]*)-(?:control-plane|worker)\d*\b")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,49}")

_NONE: Mapping[str, str] = MappingProxyType({})

Json = dict[str, Any]


class Kind:
    """The program `kind`, and the container engine that runs its nodes."""

    def __init__(self, program: str) -> None:
        self.program = program
        # Source: kind, "Environment variables": the provider is docker unless this names another.
        self.engine = os.environ.get("KIND_EXPERIMENTAL_PROVIDER") or "docker"

    @classmethod
    def find(cls) -> Kind:
        """The program in PATH. Raises DriverUnavailable."""
        program = shutil.which("kind")
        if program is None:
            raise DriverUnavailable("the program `kind` is not installed", resolution=_GET_KIND)
        return cls(program)

    def version(self) -> str:
        """Such as `0.27.0`."""
        found = re.search(r"\d+\.\d+\S*", self._ask("say its version", "version"))
        return found[0] if found else "unknown"

    def clusters(self) -> list[str]:
        """The names of all clusters of kind's, whoever made them, whole or not."""
        # Where there is none, kind says so on standard error.
        return self._ask("list its clusters", "get", "clusters").split()

    def nodes(self, name: str) -> list[str]:
        """The containers that are the nodes of a cluster; the balancer before several control planes is none."""
        listed = self._ask("list a cluster's nodes", "get", "nodes", "--name", name).split()
        return [node for node in listed if not node.endswith("-external-load-balancer")]

    def containers(self, name: str) -> dict[str, list[str]]:
        """The id and the addresses of every container of a cluster, the balancer's too. Raises DriverError."""
        names = self._ask("list a cluster's nodes", "get", "nodes", "--name", name).split()
        if not names:
            return {}
        form = "{{.Id}}{{range .NetworkSettings.Networks}} {{.IPAddress}}{{end}}"
        argv = [self.engine, "container", "inspect", "--format", form, *names]
        told = self._run("inspect a cluster's nodes", argv, timeout_s=_NODE_TIMEOUT_S)
        return {row[0]: row[1:] for row in map(str.split, told.splitlines()) if row}

    def kubeconfig(self, name: str) -> Json:
        """How its API is reached from this host."""
        import yaml

        text = self._ask("give a cluster's kubeconfig", "get", "kubeconfig", "--name", name)
        found = yaml.safe_load(text)
        if not isinstance(found, dict):
            raise DriverUnavailable("kind gave no kubeconfig", details=text, resolution=anew(name))
        return found

    def create(self, name: str, *, config: Path, image: str, kubeconfig: Path) -> None:
        """Make a cluster; returns when its API answers. Raises DriverError; kind removes what it had begun."""
        image_option = ["--image", image] if image else []
        self._kind(
            "create the cluster",
            *("create", "cluster", "--name", name, "--config", str(config), *image_option),
            *("--kubeconfig", str(kubeconfig), "--wait", "0s"),
            timeout_s=_CREATE_TIMEOUT_S,
            image=image,
        )

    def delete(self, name: str, *, kubeconfig: Path) -> None:
        """Remove a cluster; returns when none of its nodes is left. Raises CleanupError."""
        try:
            self._kind(
                "delete the cluster",
                *("delete", "cluster", "--name", name, "--kubeconfig", str(kubeconfig)),
                timeout_s=_DELETE_TIMEOUT_S,
            )
            left = name in self.clusters()
        except DriverError as error:
            raise CleanupError(error.brief, details=error.details, resolution=error.resolution) from error
        if left:
            raise CleanupError(
                f"kind still lists the cluster '{name}'", resolution=f"kind delete cluster --name {name}"
            )

    def load(self, name: str, archive: Path) -> None:
        """Give the image in `archive` to every node. Raises DriverError."""
        self._kind("load the image", "load", "image-archive", str(archive), "--name", name, timeout_s=_LOAD_TIMEOUT_S)

    def image_config(self, node: str, reference: str) -> str:
        """The digest of the config of the image that the node's containerd calls `reference`, which tells the image
        exactly; empty where it has none of that name. Raises DriverError."""
        listed = self._on(node, "ctr", "--namespace", "k8s.io", "images", "ls")
        rows = [line.split() for line in listed.splitlines()[1:]]
        digest = next((row[2] for row in rows if len(row) > 2 and row[0] == reference), "")
        while digest:
            content = json.loads(self._on(node, "ctr", "--namespace", "k8s.io", "content", "get", digest))
            if "config" in content:
                return str(content["config"]["digest"])
            manifests = content.get("manifests") or [{}]  # an index, of one platform here
            digest = str(manifests[0].get("digest", ""))
        return ""

    def cgroup_version(self) -> int | None:
        """Of the host that the nodes run on, as their engine says; None where it does not."""
        form = "{{.Host.CgroupsVersion}}" if self.engine == "podman" else "{{.CgroupVersion}}"
        argv = [self.engine, "info", "--format", form]
        try:
            told = self._run("ask the container engine", argv, timeout_s=_ASK_TIMEOUT_S)
        except DriverError:  # what it lacks is told by whoever makes a node
            return None
        found = re.fullmatch(r"v?([12])", told.strip())
        return int(found[1]) if found else None

    def node_version(self, image: str) -> str:
        """The Kubernetes of a node image that is here, such as `v1.32.2`; empty where it is not, or says nothing."""
        run = [self.engine, "run", "--rm", "--pull", "never", "--network", "none", "--entrypoint", "cat"]
        try:
            return self._run("read the node image", [*run, image, "/kind/version"], timeout_s=_NODE_TIMEOUT_S)
        except DriverError:
            return ""

    def stop_node(self, node: str) -> None:
        """End the container that is a node, and all in it, at once. Raises DriverError."""
        argv = [self.engine, "stop", "--time", "0", node]
        self._run(f"stop the node {node}", argv, timeout_s=_NODE_TIMEOUT_S)

    def start_node(self, node: str) -> None:
        """Start it again. Raises DriverError."""
        self._run(f"start the node {node}", [self.engine, "start", node], timeout_s=_NODE_TIMEOUT_S)

    def network_config(self, node: str) -> str:
        """The node's CNI configuration, as text. Raises DriverError."""
        return self._on(node, "sh", "-c", "cat /etc/cni/net.d/*")

    def _on(self, node: str, *argv: str) -> str:
        doing = f"run '{argv[0]}' on the node {node}"
        return self._run(doing, [self.engine, "exec", node, *argv], timeout_s=_NODE_TIMEOUT_S)

    def _ask(self, doing: str, *argv: str) -> str:
        """What kind tells of what is there; that it cannot raises DriverUnavailable."""
        try:
            return self._kind(doing, *argv, timeout_s=_ASK_TIMEOUT_S)
        except DriverUnavailable:
            raise
        except DriverError as error:
            raise DriverUnavailable(error.brief, details=error.details, resolution=error.resolution) from error

    def _kind(self, doing: str, *argv: str, timeout_s: float, image: str = "") -> str:
        return self._run(f"kind could not {doing}", [self.program, *argv], timeout_s=timeout_s, image=image)

    def _run(self, doing: str, argv: Sequence[str], *, timeout_s: float, image: str = "") -> str:
        brief = doing if doing.startswith("kind ") else f"could not {doing}"
        try:
            # A group of its own: Ctrl-C is for the lab, which then has kind remove what it began.
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=timeout_s, check=False, start_new_session=True,
                stdin=subprocess.DEVNULL, errors="replace",
            )  # fmt: skip
        except FileNotFoundError as error:
            raise DriverUnavailable(f"the program `{argv[0]}` is not installed", resolution=_GET_KIND) from error
        except subprocess.TimeoutExpired as error:
            said = (error.stderr or b"").decode(errors="replace")
            raise DriverError(f"{brief} within {timeout_s:g} s", details=said, resolution="lab cluster down") from error
        if done.returncode != 0:
            raise refusal(brief, done.stderr + done.stdout, image=image)
        return done.stdout


def refusal(brief: str, said: str, *, image: str = "") -> DriverError:
    """The error for what kind, or the container engine, said when it failed.

    The texts are those of kind 0.27 (pkg/cluster/internal) and of Docker 20.10 to 28.
    """
    text = _COMMAND.sub("", said).lower()  # which has `--privileged` and every port in it
    resolution = ""
    if found := _refused_by_docker(text):
        return DriverUnavailable(found[0], details=said, resolution=found[1])
    if bound := re.search(r"bind for (\S+:\d+) failed|listen tcp4? (\S+:\d+): bind", text):
        where = bound[1] or bound[2]
        return DriverError(
            f"{where} is in use, and the cluster's pool of ports needs it",
            details=said,
            resolution="free it: see `ss -ltnp`",
        )
    if re.search(r"failed to pull image|pull access denied|manifest unknown|no such image|unable to find image", text):
        named = f"'{image}'" if image else "that kind uses by default"
        return DriverUnavailable(
            f"the node image {named} is not here, and cannot be pulled",
            details=said,
            resolution="`docker load` a node image, then: lab cluster up --kind-image NAME",
        )
    stopped = re.search(r"container (\S+) is not running", text)
    if stopped and "create the cluster" not in brief:  # kind has removed a node that ended while it made it
        # kind names the node in its command; the engine's answer has the container's digits.
        node = _NODE.search(brief) or _NODE.search(said)
        return DriverUnavailable(
            f"the node {node[0] if node else stopped[1]} of the kind cluster does not run",
            details=said,
            resolution=f"docker start {node[0] if node else stopped[1]}; or {anew(node[1] if node else DEFAULT_NAME)}",
        )
    # Other commands may be forbidden for other reasons.
    if "unable to apply caps" in text or (_RUN.search(said) and re.search(r"operation not permitted|privileged", text)):
        return DriverUnavailable(
            "Docker starts no privileged containers here, and kind's nodes are such",
            details=said,
            resolution="use a host whose Docker may, or another cluster: --context NAME",
        )
    if "already exist for a cluster" in text:
        resolution = anew(DEFAULT_NAME)
    return DriverError(f"{brief}: {_reason(said)}", details=said, resolution=resolution)


def _refused_by_docker(text: str) -> tuple[str, str] | None:
    """What keeps from Docker itself, and what mends it."""
    if "cannot connect to the docker daemon" in text or "is the docker daemon running" in text:
        return "Docker does not run, which holds kind's nodes", "sudo systemctl start docker"
    if "permission denied" in text and "docker.sock" in text:
        mends = "sudo usermod -aG docker $USER, then log in again; or use sudo"
        return "Docker refuses this user, and it holds kind's nodes", mends
    return None


def _reason(said: str) -> str:
    """The line that says why: of the output of the command that kind ran, else kind's own."""
    own, _, output = _COMMAND.sub("a command failed", said).partition("Command Output:")
    lines = [" ".join(line.split()) for line in output.splitlines() if "error" in line.lower()]
    lines += [line.removeprefix("ERROR:").strip() for line in own.splitlines() if line.startswith("ERROR:")]
    lines += [" ".join(line.split()) for line in reversed(own.splitlines()) if line.strip()]
    return (lines or ["it does not say why"])[0]


def cluster_config(
    name: str,
    given: Json | None,
    *,
    api_port: int | None = None,
    pool: bool = True,
    labels: Mapping[str, str] = _NONE,
    workers: int = 0,
) -> Json:
    """kind's config for a cluster of the lab's: the user's `given` one, and in it the nodes' `labels` and, with
    `pool`, its ports on the first worker (else the first node); everything listens on loopback. With `workers`, so
    many nodes beside the control plane, where `given` names no nodes.

    Raises BadInput where `given` would listen elsewhere, or names nodes and `workers` are asked for as well.
    """
    config: Json = json.loads(json.dumps(given or {}))  # a copy, in which YAML's anchors share nothing
    config.setdefault("kind", "Cluster")
    config.setdefault("apiVersion", "kind.x-k8s.io/v1alpha4")
    networking = config.setdefault("networking", {})
    _on_loopback(networking, "apiServerAddress")
    if api_port is not None:
        networking["apiServerPort"] = api_port
    if workers and config.get("nodes"):
        raise BadInput("the kind config names its nodes, and --workers does", resolution="leave out one of them")
    nodes = config.setdefault("nodes", [{"role": "control-plane"}, *({"role": "worker"} for _ in range(workers))])
    for node in nodes:
        node.setdefault("labels", {}).update({CLUSTER_LABEL: name, **labels})
        for mapping in node.get("extraPortMappings") or ():
            _on_loopback(mapping, "listenAddress")
    if pool:
        entrance = next((node for node in nodes if node.get("role") == "worker"), nodes[0])
        entrance["labels"] |= PORTS
        entrance.setdefault("extraPortMappings", []).extend(
            {"containerPort": at, "hostPort": host, "listenAddress": _LOOPBACK, "protocol": "TCP"}
            for at, host in pool_ports().items()
        )
    return config


def pool_ports() -> dict[int, int]:
    """The pool: each of the node's ports, and the port of 127.0.0.1 that leads to it."""
    return {FIRST_NODE_PORT + i: FIRST_HOST_PORT + i for i in range(POOL)}


def anew(name: str) -> str:
    """What makes the lab's cluster `name` again."""
    option = "" if name == DEFAULT_NAME else f" --driver-option kind-cluster={name}"
    return f"lab cluster down{option}, then lab cluster up{option}"


def check_name(name: str) -> str:
    """`name`, where kind takes it for a cluster. Raises BadInput."""
    if not _NAME.fullmatch(name):
        raise BadInput(f"'{name}' is no name for a kind cluster", resolution="use a-z, 0-9 and -")
    return name


def read_config(path: Path) -> Json:
    """The user's config, as JSON values. Raises BadInput where it cannot be read, or is none."""
    import yaml

    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(
            f"{path} cannot be read as a kind config: {' '.join(str(error).split())}",
            resolution="see https://kind.sigs.k8s.io/docs/user/configuration",
        ) from error
    nodes = found.get("nodes", []) if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(nodes, list) or not all(isinstance(one, dict) for one in nodes):
        raise BadInput(f"{path} is no kind config", resolution="see https://kind.sigs.k8s.io/docs/user/configuration")
    if not nodes:
        found.pop("nodes", None)
    return found


def _on_loopback(section: Any, key: str) -> None:
    if section.setdefault(key, _LOOPBACK) not in (_LOOPBACK, "::1"):
        raise BadInput(
            f"the kind config would let the cluster listen at {section[key]}",
            resolution=f"leave out {key}, or set it to {_LOOPBACK}",
        )

"""The lab's own clusters: kind's arguments and config, what is left of a half-made one, and kind's errors."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from drivers.kubernetes import KubernetesDriver
from drivers.kubernetes.cluster import makers
from drivers.kubernetes.cluster.clusters import Clusters
from drivers.kubernetes.cluster.kind import Kind, cluster_config, pool_ports, read_config, refusal
from drivers.kubernetes.objects.labels import owner_labels
from drivers.kubernetes.pods.ports import Pool
from lab.driver import Context
from lab.errors import BadInput, CleanupError, DriverError, DriverUnavailable, LaunchError
from lab.features import Clustered
from lab.host import procs
from lab.host.ownership import Owner, owner_alive
from lab.launch.waiter import reserve_port

RUN = subprocess.run  # before a fixture stands in for it
LOST = "stratalab-0123456789ab"
DEAD = str(replace(Owner.current(), start_ticks=1))
OLDER = "0" * 32 + ":00000000-0000-0000-0000-000000000000:1:1"
"""The form of labs that did not tell the PID namespace."""


@pytest.fixture
def context(tmp_path: Path) -> Context:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    return Context(run_dir=run_dir, cache_dir=tmp_path / "cache", options={"kind-image": "kindest/node:own"})


def silent(_: str) -> None: ...


def test_a_cluster_is_made_once_with_its_pool_on_loopback(context: Context, kind: Any, stub: Any) -> None:
    driver = KubernetesDriver("", context)
    assert isinstance(driver, Clustered)
    said: list[str] = []
    facts = driver.cluster_up(said.append)
    assert facts["node_image"] == "kindest/node:own" and facts["nodes"] == ["stratalab-control-plane"]
    assert driver.cluster_up(said.append) == facts
    created = [call for call in kind.calls() if call[1:3] == ["create", "cluster"]]
    assert len(created) == 1
    assert created[0][created[0].index("--image") + 1] == "kindest/node:own"
    assert created[0][created[0].index("--name") + 1] == "stratalab"
    kubeconfig = Path(created[0][created[0].index("--kubeconfig") + 1])
    assert kubeconfig.is_relative_to(context.cache_dir)  # the user's own stays as it is
    config = yaml.safe_load((kind.directory / "config").read_text())
    assert config["networking"]["apiServerAddress"] == "127.0.0.1"
    (node,) = config["nodes"]
    assert node["labels"].items() >= {"lab.cluster": "stratalab", "lab.ports": "mapped"}.items()
    mappings = node["extraPortMappings"]
    assert len(mappings) == 32 and {one["listenAddress"] for one in mappings} == {"127.0.0.1"}
    assert driver.cluster_status()["ports_in_use"] == "0 of 32"
    assert driver.info().facts["pool"] == 32
    driver.close()
    assert driver.cluster_down() is True and not kind.has("stratalab")
    assert driver.cluster_down() is False
    assert not list((context.cache_dir / "kind").iterdir())


def test_a_cluster_of_another_image_is_not_silently_used(context: Context, kind: Any) -> None:
    KubernetesDriver("", context).cluster_up(silent)
    other = Context(run_dir=context.run_dir, cache_dir=context.cache_dir, options={"kind-image": "kindest/node:other"})
    with pytest.raises(BadInput, match="made with the node image kindest/node:own, not kindest/node:other"):
        KubernetesDriver("", other).cluster_up(silent)
    none = Context(run_dir=context.run_dir, cache_dir=context.cache_dir)
    KubernetesDriver("", none).cluster_up(silent)


def test_a_config_is_remembered_and_a_differing_one_is_not_silently_passed_over(
    context: Context, kind: Any, tmp_path: Path
) -> None:
    path = tmp_path / "kind.yaml"
    path.write_text("networking: {podSubnet: 10.9.0.0/16}")
    options = {**context.options, "kind-config": str(path)}
    driver = KubernetesDriver("", Context(run_dir=context.run_dir, cache_dir=context.cache_dir, options=options))
    facts = driver.cluster_up(silent)
    assert facts["kind_config"] == {"networking": {"podSubnet": "10.9.0.0/16"}}  # as the user gave it
    assert driver.cluster_up(silent) == facts
    assert KubernetesDriver("", context).cluster_up(silent) == facts
    path.write_text("networking: {podSubnet: 10.8.0.0/16}")
    with pytest.raises(BadInput, match="'stratalab' was made with another kind config") as raised:
        driver.cluster_up(silent)
    assert raised.value.resolution == "lab cluster down, then lab cluster up"


def test_options_are_read_from_the_environment_too(
    context: Context, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_KIND_IMAGE", "kindest/node:environment")
    none = Context(run_dir=context.run_dir, cache_dir=context.cache_dir)
    assert KubernetesDriver("", none).cluster_up(silent)["node_image"] == "kindest/node:environment"


def test_a_creation_that_fails_leaves_nothing(context: Context, kind: Any) -> None:
    kind.fail("ERROR: failed to create cluster: failed to pull image kindest/node:own: exit status 1")
    with pytest.raises(DriverUnavailable) as raised:
        KubernetesDriver("", context).cluster_up(silent)
    assert raised.value.brief == "the node image 'kindest/node:own' is not here, and cannot be pulled"
    assert "--kind-image" in raised.value.resolution
    assert not kind.has("stratalab") and not list((context.cache_dir / "kind").iterdir())


def test_what_a_dead_maker_began_is_found_by_label_and_removed(context: Context, kind: Any, stub: Any) -> None:
    clusters = Clusters(context.cache_dir)
    labels = {"lab.run": "r7", "lab.owner": DEAD}
    clusters.create("stratalab", cluster_config("stratalab", None), image="", labels=labels).close()
    driver = KubernetesDriver("", context)
    with pytest.raises(DriverUnavailable, match="is not finished") as raised:
        driver.info()
    assert raised.value.resolution == "lab cluster down, then lab cluster up"
    assert driver.leftovers({"lab.run": "r7"})[0].kind == "cluster"
    (left,) = driver.leftovers({})
    assert left.labels == labels
    left.delete()
    left.delete()
    assert not kind.has("stratalab")


@pytest.fixture
def lost(kind: Any, stub: Any, context: Context) -> Clusters:
    """A cluster of a run in which the lab was killed and its record removed, and then kind went on."""
    (kind.directory / "clusters" / LOST).write_text("")
    (kind.directory / "clusters" / "stratalab-of-mine").write_text("")
    return Clusters(context.cache_dir)


def test_a_lost_cluster_is_found_by_its_name(lost: Clusters, kind: Any) -> None:
    (kind.directory / "stopped").touch()  # it does not answer
    (left,) = lost.unfinished({})
    assert left.id == LOST and owner_alive(left.labels) is None
    left.delete()
    assert kind.names() == ["stratalab-of-mine"] and lost.unfinished({}) == []


@pytest.mark.parametrize(
    ("owner", "alive"),
    [(DEAD, False), (OLDER, None), (str(Owner.current()), True)],
    ids=["dead", "older", "living"],
)
def test_a_lost_cluster_that_answers_tells_its_owner(lost: Clusters, stub: Any, owner: str, alive: bool | None) -> None:
    labels = {"lab.run": "r7", "lab.owner": owner}
    node = cluster_config(LOST, None, labels=owner_labels(labels))["nodes"][0]
    stub.listed("nodes")[0]["metadata"]["labels"] = node["labels"]
    (left,) = lost.unfinished({"lab.run": "r7"})
    assert left.labels == labels and owner_alive(left.labels) is alive
    assert lost.unfinished({"lab.run": "r8"}) == []


def test_a_whole_cluster_or_anothers_of_such_a_name_is_no_leftover(lost: Clusters, kind: Any, stub: Any) -> None:
    assert lost.unfinished({}) == []  # its node is labelled as another's
    stub.listed("nodes")[0]["metadata"]["labels"] = {"lab.cluster": LOST}
    assert [left.id for left in lost.unfinished({})] == [LOST]
    kind.make(LOST)
    assert lost.unfinished({}) == []


def test_a_kind_that_still_makes_nodes_is_their_living_owner_until_it_is_ended(
    lost: Clusters, kind: Any, tmp_path: Path
) -> None:
    program = tmp_path / "programs" / "kind"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nif [ $5 = parent ]; then sleep 60 & fi\nread nothing\n")
    program.chmod(0o755)
    command = [program, "create", "cluster", "--name", LOST]
    with (
        subprocess.Popen([*command, "parent"], stdin=subprocess.PIPE, start_new_session=True) as maker,
        subprocess.Popen([*command, "alone"], stdin=subprocess.PIPE) as of_a_user,
    ):
        try:
            _until(lambda: len(makers.find(LOST)) == 2)
            (left,) = lost.unfinished({})
            assert owner_alive(left.labels) is True
            left.delete()
            assert maker.wait(10) == -signal.SIGKILL
            assert not [entry for entry in procs.table().values() if entry.session == maker.pid]
            assert of_a_user.poll() is None
        finally:
            maker.kill()
            of_a_user.kill()
    assert not kind.has(LOST)


def test_without_kind_what_is_recorded_is_found_all_the_same(
    context: Context, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clusters = Clusters(context.cache_dir)
    clusters.create("x", cluster_config("x", None), image="", labels={"lab.run": "r7", "lab.owner": DEAD}).close()
    monkeypatch.setenv("PATH", "/nonexistent")
    assert [left.id for left in clusters.unfinished({})] == ["x"]


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_up_begins_anew_after_a_dead_maker_and_waits_for_a_living_one(context: Context, kind: Any) -> None:
    clusters = Clusters(context.cache_dir)
    labels = {"lab.run": "r7", "lab.owner": str(Owner.current())}
    clusters.create("stratalab", cluster_config("stratalab", None), image="", labels=labels).close()
    for owner in (str(Owner.current()), OLDER):
        (context.cache_dir / "kind" / "stratalab.json").write_text(json.dumps({**labels, "lab.owner": owner}))
        with pytest.raises(DriverUnavailable, match="another process is making"):
            KubernetesDriver("", context).cluster_up(silent)
    (context.cache_dir / "kind" / "stratalab.json").write_text(json.dumps({**labels, "lab.owner": DEAD}))
    KubernetesDriver("", context).cluster_up(silent)
    assert clusters.unfinished({}) == []


def test_a_whole_cluster_is_no_leftover(context: Context, kind: Any) -> None:
    driver = KubernetesDriver("", context)
    driver.cluster_up(silent)
    assert driver.leftovers({}) == []
    driver.close()


def test_a_cluster_of_somebody_elses_is_left_alone(context: Context, kind: Any, stub: Any) -> None:
    (kind.directory / "clusters" / "stratalab").write_text("")
    stub.listed("nodes")[0]["metadata"]["labels"] = {}
    driver = KubernetesDriver("", context)
    for attempt in (driver.info, driver.cluster_down, lambda: driver.cluster_up(silent)):
        with pytest.raises((BadInput, DriverUnavailable), match="is not the lab's"):
            attempt()
    assert kind.has("stratalab")


@pytest.mark.parametrize(("name", "option"), [("stratalab", ""), ("mine", " --driver-option kind-cluster=mine")])
def test_a_node_that_was_stopped_is_named_with_what_starts_it(
    context: Context, kind: Any, name: str, option: str
) -> None:
    options = {"kind-cluster": name}
    driver = KubernetesDriver("", Context(run_dir=context.run_dir, cache_dir=context.cache_dir, options=options))
    kind.make(name)
    (kind.directory / "stopped").touch()
    asked = (driver.info, driver.cluster_status, lambda: driver.cluster_up(silent))
    for attempt in (*asked, lambda: driver.list_instances({}), lambda: driver.leftovers({})):
        with pytest.raises(DriverUnavailable) as raised:
            attempt()
        assert raised.value.brief == f"the node {name}-control-plane of the kind cluster does not run"
        again = f"lab cluster down{option}, then lab cluster up{option}"
        assert raised.value.resolution == f"docker start {name}-control-plane; or {again}"


@pytest.mark.parametrize("data", [None, {}, {"cluster": "{"}, {"cluster": '{"ports": {}}'}])
def test_a_cluster_whose_own_record_was_edited_is_unavailable(
    context: Context, kind: Any, stub: Any, data: Any
) -> None:
    kind.make()
    stub.listed("configmaps")[0]["data"] = data
    with pytest.raises(DriverUnavailable, match="does not tell what it was made with") as raised:
        KubernetesDriver("", context).info()
    assert raised.value.resolution == "lab cluster down, then lab cluster up"


def test_an_api_that_is_gone_is_unavailable_with_what_mends_it(context: Context, kind: Any, k8s: Any) -> None:
    kind.make()
    nobody = k8s.kubeconfig(f"http://127.0.0.1:{reserve_port()}")
    (kind.directory / "kubeconfig").write_text(yaml.safe_dump(nobody))
    driver = KubernetesDriver("", context)
    for attempt in (driver.info, lambda: driver.list_instances({}), lambda: driver.leftovers({})):
        with pytest.raises(DriverUnavailable, match="is not reachable") as raised:
            attempt()
        assert "`docker ps -a`, or lab cluster down, then lab cluster up" in raised.value.resolution


def test_a_kind_that_cannot_tell_is_unavailable(context: Context, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(argv: list[str], **_: Any) -> None:
        raise subprocess.TimeoutExpired(argv, 60)

    monkeypatch.setattr("drivers.kubernetes.cluster.kind.subprocess.run", hang)
    with pytest.raises(DriverUnavailable, match="could not list its clusters within 60 s"):
        KubernetesDriver("", context).info()


def test_a_users_config_keeps_what_it_says_and_gets_the_pool_on_its_first_worker(tmp_path: Path) -> None:
    path = tmp_path / "kind.yaml"
    path.write_text(
        yaml.safe_dump({"featureGates": {"X": True}, "nodes": [{"role": "control-plane"}, {"role": "worker"}]})
    )
    config = cluster_config("mine", read_config(path))
    assert config["featureGates"] == {"X": True} and config["kind"] == "Cluster"
    control, worker = config["nodes"]
    assert "extraPortMappings" not in control and control["labels"] == {"lab.cluster": "mine"}
    ports = {one["containerPort"]: one["hostPort"] for one in worker["extraPortMappings"]}
    assert ports == pool_ports() and worker["labels"]["lab.ports"] == "mapped"


@pytest.mark.parametrize(
    "config",
    [
        {"networking": {"apiServerAddress": "0.0.0.0"}},  # noqa: S104
        {"nodes": [{"role": "control-plane", "extraPortMappings": [{"hostPort": 1, "listenAddress": "10.0.0.1"}]}]},
        ["no", "mapping"],
        {"nodes": "none"},
    ],
)
def test_a_config_that_would_listen_elsewhere_or_is_none_is_refused(tmp_path: Path, config: Any) -> None:
    path = tmp_path / "kind.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(BadInput) as raised:
        cluster_config("x", read_config(path))
    assert raised.value.resolution


def test_a_config_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        read_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("said", "kind_of_error", "told"),
    [
        ("ERROR: failed to list clusters: Cannot connect to the Docker daemon at unix:///x", DriverUnavailable, "run"),
        ("permission denied while trying to connect to unix:///var/run/docker.sock", DriverUnavailable, "refuses"),
        (
            'ERROR: failed to create cluster: command "docker run ..." failed\nCommand Output: x: Error response from '
            "daemon: driver failed: Bind for 127.0.0.1:32600 failed: port is already allocated.",
            DriverError,
            "127.0.0.1:32600 is in use",
        ),
        ("Command Output: Unable to find image 'kindest/node:x' locally", DriverUnavailable, "node image"),
        ("OCI runtime create failed: unable to apply caps: operation not permitted", DriverUnavailable, "privileged"),
        (
            'ERROR: command "docker run --name x --privileged y" failed with error: exit status 125\n'
            "Command Output: docker: Error response from daemon: privileged mode is incompatible with user namespaces.",
            DriverUnavailable,
            "starts no privileged containers",
        ),
        (
            'ERROR: failed to create cluster: command "docker exec --privileged x kubeadm init" failed with error: '
            "exit status 1\nCommand Output: error: write /proc/sys/vm/overcommit_memory: operation not permitted",
            DriverError,
            "overcommit_memory: operation not permitted",
        ),
        (
            'ERROR: command "docker exec --privileged x cat y" failed with error: exit status 1\n'
            "Command Output: Error response from daemon: Container 4f66 is not running",
            DriverError,
            "Container 4f66 is not running",
        ),
        (
            'ERROR: failed to create cluster: command "docker run --privileged --publish=127.0.0.1:32600:30000/TCP x" '
            "failed with error: exit status 125\n\nCommand Output: e3fc\ndocker: Error response from daemon: failed to "
            "create shim task: OCI runtime create failed: runc create failed: unable to start container process: "
            "unable to apply caps: operation not permitted: unknown",
            DriverUnavailable,
            "starts no privileged containers",
        ),
        (
            'ERROR: failed to create cluster: command "docker run --privileged x" failed with error: exit status 125\n'
            "Command Output: docker: Error response from daemon: mkdir /var/lib/docker: no space left on device.",
            DriverError,
            "could not create the cluster: docker: Error response from daemon: mkdir /var/lib/docker: no space left",
        ),
        (
            'ERROR: failed to create cluster: failed to pull image "kindest/node:v1.28.0": command "docker pull '
            'kindest/node:v1.28.0" failed with error: exit status 1\n\nCommand Output: Error response from daemon: Get '
            '"https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host',
            DriverUnavailable,
            "the node image",
        ),
        ("ERROR: node(s) already exist for a cluster with the name", DriverError, "already exist"),
        ("\nERROR: failed to create cluster: could not find a log line\n\nStack Trace: x", DriverError, "a log line"),
        ("", DriverError, "does not say why"),
    ],
)
def test_what_kind_says_becomes_one_clear_line(said: str, kind_of_error: type[DriverError], told: str) -> None:
    error = refusal("kind could not create the cluster", said)
    assert type(error) is kind_of_error and told in error.brief and "\n" not in error.brief
    assert error.details == said


def test_the_real_program_is_called(tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.kubernetes.cluster.kind.subprocess.run", RUN)
    found = Kind.find()
    assert found.version() == "0.27.0"
    kind.make("one")
    assert found.clusters() == ["one"]
    kind.fail("ERROR: no")
    with pytest.raises(DriverError, match="kind could not create the cluster: no"):
        found.create("two", config=kind.directory / "cni", image="", kubeconfig=tmp_path / "k")
    found.delete("two", kubeconfig=tmp_path / "k")
    assert found.clusters() == ["one"]


def test_an_image_behind_an_index_is_known_by_its_config(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "ls": "REF TYPE DIGEST SIZE\ndocker.io/x:10 t sha256:other 1\ndocker.io/x:1 t sha256:index 1",
        "sha256:index": json.dumps({"manifests": [{"digest": "sha256:manifest"}]}),
        "sha256:manifest": json.dumps({"config": {"digest": "sha256:config"}}),
    }
    found = Kind.find()
    monkeypatch.setattr(found, "_on", lambda _, *argv: answers.get(argv[-1], answers["ls"]))
    assert found.image_config("n", "docker.io/x:1") == "sha256:config"
    assert found.image_config("n", "docker.io/x:2") == ""


def test_a_cluster_that_stays_is_a_cleanup_error(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kind, "clusters", lambda _: ["stays"])
    with pytest.raises(CleanupError, match="still lists the cluster 'stays'"):
        Kind.find().delete("stays", kubeconfig=tmp_path / "k")


def test_the_pool_gives_the_longest_unused_port_and_no_port_twice() -> None:
    pool = Pool({1: 101, 2: 102, 3: 103})
    assert [pool.take(), pool.take()] == [1, 2]
    pool.give_back(1)
    pool.give_back(1)
    assert [pool.take(), pool.take()] == [3, 1]
    with pytest.raises(LaunchError):
        pool.take()
    pool.give_back(99)
    assert pool.host_port(99) is None and len(pool) == 3

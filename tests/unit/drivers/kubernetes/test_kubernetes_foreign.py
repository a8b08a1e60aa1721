"""Clusters of other people: a user of one namespace alone, Pod Security, LimitRanges and quotas."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from drivers.kubernetes import KubernetesDriver
from lab.driver import ANSWERS_AT, Context, Driver
from lab.errors import BadInput, DriverError, LabError, LaunchError
from lab.features import Feature
from lab.host.ownership import Owner
from lab.launch.session import Session
from lab.run.clean import sweep
from lab.spec import Endpoint, Spec
from lab.timeline import SystemClock

LABELS = {"lab.run": "r1", "lab.scenario": "test", "lab.owner": str(Owner.current()), "lab.target": "kubernetes:x"}
OWN = Spec(labels=LABELS)
THEIRS = Spec(labels=LABELS, image="registry.example/x:1", ready_path="/")
Make = Callable[..., KubernetesDriver]


@pytest.fixture
def make(tmp_path: Path, stub: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Drivers on a context `work`, whose own namespace is `team-a`."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "contexts": [{"name": "work", "context": {"cluster": "c", "user": "u", "namespace": "team-a"}}],
        "clusters": [{"name": "c", "cluster": {"server": stub.url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    for option in ("CONTEXT", "ROUTE", "NAMESPACE", "SECURITY", "REQUEST_CPU", "REQUEST_MEMORY", "KIND_CLUSTER"):
        monkeypatch.delenv(f"LAB_{option}", raising=False)
    monkeypatch.setenv("LAB_SERVICE_IMAGE", "registry.example/lab:1")
    stub.add("namespaces", {"metadata": {"name": "team-a"}})
    made: list[Driver] = []

    def one(variant: str = "", **options: str) -> KubernetesDriver:
        given = {"context": "work", **{key.replace("_", "-"): value for key, value in options.items()}}
        made.append(KubernetesDriver(variant, Context(run_dir=tmp_path, cache_dir=tmp_path, options=given)))
        return made[-1]  # type: ignore[return-value]

    yield one
    for driver in made:
        driver.close()


@contextlib.contextmanager
def launched(driver: Driver, spec: Spec = OWN) -> Iterator[Session]:
    driver.prepare(spec)
    with Session(driver, driver.info(), spec.for_launch(), SystemClock(), timeout_s=10) as session:
        session.launch()
        yield session


def container(stub: Any) -> Any:
    (pod,) = stub.listed("pods")
    return pod["spec"]["containers"][0]


@pytest.mark.parametrize("variant", ["", "deployment"])
def test_a_user_of_one_namespace_alone_measures_there(make: Make, stub: Any, variant: str) -> None:
    stub.home = "team-a"
    driver = make(variant)
    info = driver.info()
    assert "may not list them" in info.facts["nodes"] and info.facts["kubelet"] == []
    assert Feature.HOST_PIDS not in info.features
    with launched(driver) as session:
        (pod,) = stub.listed("pods")
        assert pod["metadata"]["namespace"] == "team-a"
        assert "no new one may be made" in driver.info().facts["namespaces"]["team-a"]
        (service,) = stub.listed("services", "team-a")
        port = service["spec"]["ports"][0]["nodePort"]
        assert session.instance is not None
        # The node's address is the pod's own, since no node may be looked at.
        assert session.instance.endpoint == Endpoint("127.0.0.1", port) and session.answer is not None
        (found,) = make(variant).list_instances({"lab.run": "r1"})
        assert found.id == session.instance.id
    assert not stub.listed("pods") and not stub.listed("services")
    orphan = {"metadata": {"name": "lab-x", "labels": {"lab.run": "r1"}}, "spec": {"ports": [{"nodePort": 30001}]}}
    stub.add("services", orphan, "team-a")
    swept = sweep([driver], {"lab.run": "r1"}, owned=True, quiet_s=0.0)
    assert [item.id for item in swept.removed] == ["team-a/lab-x"] and not swept.problems
    assert not stub.asked("DELETE", "/namespaces/team-a$")


def test_a_runtime_class_that_may_not_be_looked_at_is_asked_for_all_the_same(make: Make, stub: Any) -> None:
    stub.home = "team-a"
    driver = make("runtimeclass=kata")
    assert driver.info().isolation == "as the RuntimeClass kata gives it, which this user may not look at"
    with launched(driver):
        (pod,) = stub.listed("pods")
        assert pod["spec"]["runtimeClassName"] == "kata"


@pytest.mark.parametrize("text", ["", "[]", "hello", "contexts: x", "contexts: [1]", "{", "clusters: 3"])
def test_a_file_that_is_no_kubeconfig_is_one_clear_line(make: Make, tmp_path: Path, text: str) -> None:
    (tmp_path / "kubeconfig").write_text(text)
    with pytest.raises(LabError) as raised:
        make().info()
    assert "\n" not in raised.value.brief and raised.value.resolution


def test_a_namespace_that_the_user_names_is_used_and_kept(make: Make, stub: Any) -> None:
    stub.add("namespaces", {"metadata": {"name": "bench"}})
    driver = make(namespace="bench")
    with launched(driver):
        (pod,) = stub.listed("pods")
        assert pod["metadata"]["namespace"] == "bench"
        assert driver.info().facts["namespaces"] == {"bench": "asked for"}
    assert driver.leftovers({"lab.run": "r1"}) == []
    assert stub.listed("namespaces") and not stub.asked("POST", "/namespaces$")


def test_a_namespace_that_is_not_there_is_bad_input(make: Make) -> None:
    with pytest.raises(BadInput, match="no namespace 'nowhere'") as raised:
        make(namespace="nowhere").prepare(OWN)
    assert "kubectl create namespace nowhere" in raised.value.resolution


def test_where_namespaces_may_be_made_a_run_has_one_of_its_own(make: Make, stub: Any) -> None:
    with launched(make()):
        (pod,) = stub.listed("pods")
        assert pod["metadata"]["namespace"] == "lab-r1"


def test_a_namespace_that_is_going_away_is_no_reason_for_another(make: Make, stub: Any) -> None:
    said = 'namespaces "lab-r1" is forbidden: unable to create because it is being terminated'
    stub.refuse("POST", "/namespaces$", 403, said)
    with pytest.raises(DriverError, match="going away"):
        make().prepare(OWN)


def test_nodes_that_cannot_be_had_for_another_reason_are_told(make: Make, stub: Any) -> None:
    stub.refuse("GET", "/nodes", 403, 'nodes is forbidden: User "system:anonymous" cannot list resource "nodes"')
    with pytest.raises(DriverError, match="gives no credentials"):
        make().info()


@pytest.mark.parametrize("variant", ["", "deployment"])
def test_the_labs_own_service_runs_under_pod_security_restricted(make: Make, stub: Any, variant: str) -> None:
    stub.enforced["lab-r1"] = "restricted"
    with launched(make(variant)) as session:
        context = container(stub)["securityContext"]
        assert context["runAsUser"] > 0 and context["runAsNonRoot"] is True
        assert session.answer is not None
    assert not stub.listed("pods")


@pytest.mark.parametrize("variant", ["", "deployment"])
def test_another_image_runs_as_it_says_and_what_forbids_that_names_the_option(
    make: Make, stub: Any, variant: str
) -> None:
    with launched(make(variant), THEIRS):
        assert container(stub)["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    stub.enforced["lab-r1"] = "restricted"
    driver = make(variant)
    assert "as the image" not in driver.info().facts["security"]["the lab's own service"]
    with pytest.raises(LaunchError) as raised, launched(driver, THEIRS):
        pass
    assert 'violates PodSecurity "restricted:latest"' in raised.value.brief
    assert "-o security=restricted" in raised.value.resolution and not stub.listed("pods")
    with launched(make(variant, security="restricted"), THEIRS):
        assert "runAsUser" not in container(stub)["securityContext"]  # the image's own


def test_a_cluster_that_gives_its_pods_users_is_asked_for_none(make: Make, stub: Any) -> None:
    annotations = {"openshift.io/sa.scc.uid-range": "1000680000/10000"}
    stub.add("namespaces", {"metadata": {"name": "bench", "annotations": annotations}})
    with launched(make(namespace="bench")):
        context = container(stub)["securityContext"]
        assert "runAsUser" not in context and context["runAsNonRoot"] is True


def test_what_is_set_aside_is_the_users_where_he_says_so(make: Make, stub: Any) -> None:
    driver = make(request_cpu="100m", request_memory="64Mi")
    assert driver.info().facts["requests"] == {"cpu": "100m", "memory": "64Mi"}
    with launched(driver):
        resources = container(stub)["resources"]
        assert resources["requests"] == {"cpu": "100m", "memory": "64Mi"}
        assert resources["limits"] == {"cpu": "1000m", "memory": str(128 << 20)}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"request_memory": "much"}, "request-memory: 'much' is no quantity"),
        ({"request_memory": "1Gi"}, "request-memory=1Gi is more than a pod's limit"),
        ({"request_cpu": "1001m"}, "request-cpu=1001m is more than"),
        ({"security": "none"}, "there is no security 'none'"),
    ],
)
def test_options_that_cannot_be_are_bad_input(make: Make, options: dict[str, str], told: str) -> None:
    with pytest.raises(BadInput, match=told) as raised:
        make(**options).prepare(OWN)
    assert raised.value.resolution


@pytest.mark.parametrize(
    ("said", "brief", "remedy"),
    [
        (
            'pods "lab-x" is forbidden: minimum memory usage per Container is 200Mi, but request is 16Mi',
            "a LimitRange of the namespace forbids the pod",
            "give -o request-memory=200Mi",
        ),
        (
            'pods "lab-x" is forbidden: exceeded quota: q, requested: limits.memory=134217728, used: '
            "limits.memory=960Mi, limited: limits.memory=1Gi",
            "a quota of the cluster forbids it",
            "give --memory 64M",
        ),
    ],
)
def test_a_limit_range_and_a_quota_name_the_option_that_meets_them(
    make: Make, stub: Any, said: str, brief: str, remedy: str
) -> None:
    stub.refuse("POST", "/pods", 403, said)
    with pytest.raises(LaunchError) as raised, launched(make()):
        pass
    assert brief in raised.value.brief and said in raised.value.brief
    assert remedy in raised.value.resolution and "use a context that may" not in raised.value.resolution
    assert not stub.listed("pods") and not stub.listed("services")


def test_the_plan_is_told_where_others_reach_the_instances(make: Make, stub: Any) -> None:
    told = make().info().facts[ANSWERS_AT]
    assert "a port of every node" in told and "127.0.0.1 is asked" in told
    assert "a port of every node" in make("deployment").info().facts[ANSWERS_AT]
    assert ANSWERS_AT not in make(route="port-forward").info().facts
    assert "own addresses" in make(route="pod-address").info().facts[ANSWERS_AT]


def test_a_pod_whose_node_is_not_told_names_another_way(
    make: Make, stub: Any, k8s: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drivers.kubernetes.pods.launch._ADDRESS_TIMEOUT_S", 0.2)
    stub.home = "team-a"
    stub.kubelet = k8s.schedule
    with pytest.raises(LaunchError, match="address of the pod's node") as raised, launched(make()):
        pass
    assert "-o route=port-forward" in raised.value.resolution
    assert not stub.listed("pods")

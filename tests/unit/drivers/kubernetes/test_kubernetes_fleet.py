"""A fleet of pods: listings by pages, an API that has too much to do, and how much memory the lab takes for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from drivers.kubernetes.connection import client
from drivers.kubernetes.connection.client import Api
from drivers.kubernetes.connection.page import Page
from drivers.kubernetes.connection.telling import ran, telling, waited
from drivers.kubernetes.events.watch import Watcher
from drivers.kubernetes.objects import manifests
from drivers.kubernetes.objects.manifests import Form
from lab.spec import Spec
from lab.store.record import ASKED_AGAIN

FORM = Form(image="i", pull_policy="Never", security={}, host_port=None)

CHILD = """
import json, sys, threading
from drivers.kubernetes.connection.client import connect
from drivers.kubernetes.events.watch import Watcher
from drivers.kubernetes.pods.inventory import find_instances, pods_of_the_lab, ports_in_use
from drivers.kubernetes.pods.launch import Ground
from drivers.kubernetes.pods.routes import Route

class Counting:
    def __init__(self): self.seen = 0
    def event(self, kind, pod): self.seen += 1
    def seen(self, pod): pass
    def missed(self): pass

api = connect(kubeconfig=json.loads(sys.argv[1]))
ground = Ground(api=api, route=Route(name="pod-address", why=""), pool=None, local=False)
watcher = Watcher(api, "n")
watcher.connect()
ports_in_use(api)
found = len(pods_of_the_lab(ground))
watcher.close()
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([found, peak]))
"""


def fill(stub: Any, count: int) -> None:
    """So many pods of the lab's, as large as an API tells them."""
    for number in range(count):
        labels = {"lab.run": "r1", "lab.launch": f"{number:016x}", "lab.owner": "m:b:1:2:3", "lab.target": "kubernetes"}
        body = manifests.pod(Spec(labels=labels, nonce="0" * 32), FORM)
        body["status"] = {
            "phase": "Running",
            "podIP": "10.244.0.7",
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
                for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
            ],
            "containerStatuses": [{"name": "service", "state": {"running": {}}, "imageID": "sha256:" + "0" * 64}],
        }
        body["metadata"]["managedFields"] = [{"manager": "kubelet", "fieldsV1": {f"f:{one}": {} for one in range(20)}}]
        stub.add("pods", body, "n")


def names(api: Api) -> list[str]:
    return [pod["metadata"]["name"] for pod in api.each(api.core.list_namespaced_pod, "n")]


def test_a_listing_comes_in_pages_and_none_is_left_out(api: Api, stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PAGE", 10)
    fill(stub, 35)
    found = names(api)
    assert len(found) == len(set(found)) == 35
    asked = [path for verb, path, _ in stub.requests if verb == "GET" and "/pods" in path]
    assert len(asked) == 4
    assert all("limit=10" in path for path in asked)
    assert [("continue=" in path) for path in asked] == [False, True, True, True]


def test_a_listing_that_is_forgotten_goes_on_where_the_api_offers(
    api: Api, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_PAGE", 10)
    fill(stub, 25)
    stub.expired = f"{stub.version}/10"
    assert len(set(names(api))) == 25
    assert stub.expired == ""


@pytest.mark.parametrize(
    "text",
    [
        '{"kind":"PodList","metadata":{"resourceVersion":"7","continue":"t"},"items":[{"a":"]}"},{"b":[1,{}]}]}',
        ' { "items" : [ {"a":"]}"} , {"b":[1,{}]} ] , "metadata" : {"resourceVersion":"7","continue":"t"} } ',
    ],
)
def test_a_page_is_read_object_by_object_whatever_its_order_and_space(text: str) -> None:
    page = Page(text)
    assert list(page) == [{"a": "]}"}, {"b": [1, {}]}]
    assert (page.version, page.token) == ("7", "t")


@pytest.mark.parametrize("text", ['{"items":null}', '{"items":[]}', "{}"])
def test_a_page_may_have_nothing(text: str) -> None:
    assert list(Page(text)) == []


@pytest.mark.parametrize("text", ["", "[]", '{"items":[{}', '{"items":[{} {}]}', "<html>"])
def test_what_is_no_page_is_a_clear_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"no list of Kubernetes|Expecting"):
        list(Page(text))


def test_a_watch_begins_where_the_first_page_was_seen(api: Api, stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PAGE", 10)
    fill(stub, 25)
    seen = str(stub.version)
    watcher = Watcher(api, "n")
    watcher.connect()
    try:
        stub.await_watch()
        assert stub.watches[0]["resourceVersion"] == seen
    finally:
        watcher.close()


def test_an_api_that_says_when_to_come_again_is_asked_then_and_it_is_told(api: Api, stub: Any) -> None:
    stub.refuse("GET", "/nodes", 429, "too many requests", times=1, headers={"Retry-After": "1"})
    with telling() as told:
        begun = time.monotonic()
        api.call(api.core.list_node)
        assert time.monotonic() - begun >= 1
    assert told.words() == {ASKED_AGAIN: "1x 429; 1.00 s waited"}


def test_an_api_without_a_word_of_when_is_given_up_after_four_times(api: Api, stub: Any, quick: None) -> None:
    stub.refuse("GET", "/pods", 429, "too many requests", times=9)
    with telling() as told, pytest.raises(Exception, match="429"):
        api.call(api.core.list_namespaced_pod, "n")
    assert told.again == {429: 3}
    assert len([path for verb, path, _ in stub.requests if "/pods" in path]) == 4


def test_the_client_itself_asks_nothing_again_in_silence(api: Api, stub: Any) -> None:
    """urllib3 would, three times, where an answer of 413, 429 or 503 says `Retry-After`."""
    for status in (429, 503):
        stub.requests.clear()
        stub.refuse("GET", "/pods", status, "too many requests", times=9, headers={"Retry-After": "0"})
        with pytest.raises(Exception, match=str(status)):
            api.raw(api.core.list_namespaced_pod, "n")
        assert len(stub.requests) == 1
        stub.refusals.clear()


def test_what_one_thread_waits_for_is_not_told_of_another() -> None:
    import threading

    with telling() as outer, telling() as inner:
        waited(429, 1.5)
        ran(0.25)
        other = threading.Thread(target=waited, args=(503, 9.0))
        other.start()
        other.join()
    assert outer == inner
    assert outer.words() == {ASKED_AGAIN: "1x 429; 1.50 s waited", "credential program": "ran 1x, 0.25 s"}
    waited(429, 1.0)
    assert outer.waited_s == 1.5


@pytest.mark.parametrize("counts", [(10, 1000)])
def test_memory_is_flat_in_the_number_of_pods(stub: Any, k8s: Any, counts: tuple[int, int]) -> None:
    peaks = []
    for count in counts:
        fill(stub, count)
        told = subprocess.run(
            [sys.executable, "-c", CHILD, json.dumps(k8s.kubeconfig(stub.url))],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            cwd=Path(__file__).parents[4],
            env={**os.environ, "MALLOC_ARENA_MAX": "2"},
        )
        found, peak = json.loads(told.stdout)
        assert found == count
        peaks.append(peak)
    assert peaks[1] <= peaks[0] * 1.10, peaks

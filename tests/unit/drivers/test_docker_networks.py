"""Networks of a run's instances: one for those that are launched at the same time, and the names on it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from drivers.dockerapi import networks
from lab.spec import Spec, peer_name

LABELS = {"lab.run": "r", "lab.target": "docker:crun", "lab.launch": "one"}


class Api:
    """An engine that takes its time over a network."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self.joined: list[tuple[str, str, list[str]]] = []
        self._lock = threading.Lock()

    def networks(self, *, filters: dict[str, Any]) -> list[dict[str, Any]]:
        with self._lock:
            return [one for one in self.made if {f"{k}={v}" for k, v in one["Labels"].items()} >= set(filters["label"])]

    def create_network(self, name: str, *, labels: dict[str, str], **_: Any) -> dict[str, Any]:
        time.sleep(0.02)
        with self._lock:
            self.made.append({"Id": f"n{len(self.made)}", "Name": name, "Labels": labels})
            return self.made[-1]

    def connect_container_to_network(self, container: str, network: str, *, aliases: list[str]) -> None:
        self.joined.append((container, network, aliases))


def test_instances_that_are_launched_at_the_same_time_have_one_network() -> None:
    api = Api()
    specs = [Spec(labels={**LABELS, "lab.launch": str(number)}, peers="app") for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda spec: networks.provide(api, spec, driver="bridge"), specs))
    assert found == {"n0"}
    assert api.made[0]["Labels"] == {"lab.run": "r", "lab.target": "docker", "lab.peers": "app"}


def test_an_instance_is_known_by_its_alias_too() -> None:
    api, spec = Api(), Spec(labels=LABELS, peers="app", alias="store")
    networks.join(api, "c", "n", spec)
    assert api.joined == [("c", "n", [peer_name(LABELS), "store"])]
    assert networks.of_services("n", spec)[1] == {"Target": "n", "Aliases": ["store"]}
    plain = Spec(labels=LABELS, peers="talk")
    assert networks.names(plain) == [peer_name(LABELS)]
    assert networks.of_services("n", plain)[1] == {"Target": "n"}

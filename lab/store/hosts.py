"""The machines whose runs a store has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from lab.store.schema import runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A machine: its `id` is its fingerprint, the same in every boot; "" stands for those that no run tells. `names`
    are all that it was called, the latest first: of several in use at a time, the disk was cloned. `facts` are those
    of its latest run, which began at `last_seen`."""

    id: str
    names: Sequence[str]
    runs: int
    last_seen: str
    facts: Mapping[str, Any]


def read_hosts(connection: Connection) -> list[Host]:
    """The hosts of the lab's own runs, the one seen last first; in two queries."""
    own = runs.c.origin == ""
    latest = func.max(runs.c.started_at)
    counted = select(runs.c.host_id, runs.c.host_name, func.count(), latest).where(own)
    names: dict[str, list[str]] = {}
    number: dict[str, int] = {}
    seen: dict[str, str] = {}
    grouped = counted.group_by(runs.c.host_id, runs.c.host_name).order_by(latest.desc())
    for host_id, name, count, last in connection.execute(grouped):
        names.setdefault(host_id, [])
        if name:
            names[host_id].append(name)
        number[host_id] = number.get(host_id, 0) + count
        seen[host_id] = max(seen.get(host_id, ""), last)
    newest = select(func.max(runs.c.number)).where(own).group_by(runs.c.host_id)
    told = connection.execute(select(runs.c.host_id, runs.c.host).where(runs.c.number.in_(newest)))
    facts = {host_id: host for host_id, host in told}  # noqa: C416  rows are no pairs to a type checker
    return [
        Host(id=host_id, names=names[host_id], runs=number[host_id], last_seen=seen[host_id], facts=facts[host_id])
        for host_id in sorted(names, key=lambda host_id: seen[host_id], reverse=True)
    ]

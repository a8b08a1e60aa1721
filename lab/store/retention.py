"""Which runs go once a store has many of a host and scenario."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from lab.store.record import RunStatus
from lab.store.schema import forwards, runs

_AT_A_TIME = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What goes of a host's runs of one scenario, the newest first, and why others of the old ones stay."""

    host_id: str
    host_name: str
    scenario: str
    origin: str
    runs: int
    removed: Sequence[str]
    accepted: int
    going_on: int
    not_forwarded: int


def prunable(connection: Connection, keep: int, status: Callable[[str, str], RunStatus]) -> list[Pruned]:
    """By host, scenario and origin, the runs beyond the newest `keep`: without those that were accepted, go on, or wait
    to be forwarded. Groups of `keep` runs or fewer are left out."""
    waiting = set(connection.execute(select(forwards.c.run_id).where(forwards.c.sent.is_(None))).scalars())
    columns = (runs.c.id, runs.c.host_id, runs.c.host_name, runs.c.scenario, runs.c.origin, runs.c.status, runs.c.owner)
    query = select(*columns, runs.c.accepted_at).order_by(runs.c.started_at.desc(), runs.c.number.desc())
    groups: dict[tuple[str, str, str], list[tuple[str, str, str, str]]] = {}
    names: dict[str, str] = {}
    for run_id, host_id, host_name, scenario, origin, stored, owner, accepted_at in connection.execute(query):
        if host_name:
            names.setdefault(host_id, host_name)
        if accepted_at is not None:
            stays = "accepted"
        elif status(stored, owner) is RunStatus.RUNNING:
            stays = "going on"
        else:
            stays = "not forwarded" if run_id in waiting else ""
        groups.setdefault((host_id, scenario, origin), []).append((run_id, stays, stored, owner))
    found = []
    for (host_id, scenario, origin), members in sorted(groups.items()):
        old = members[keep:]
        why = [stays for _, stays, *_ in old]
        if old:
            found.append(
                Pruned(
                    host_id=host_id,
                    host_name=names.get(host_id, ""),
                    scenario=scenario,
                    origin=origin,
                    runs=len(members),
                    removed=[run_id for run_id, stays, *_ in old if not stays],
                    accepted=why.count("accepted"),
                    going_on=why.count("going on"),
                    not_forwarded=why.count("not forwarded"),
                )
            )
    return found


def remove(connection: Connection, ids: Sequence[str]) -> None:
    """Remove runs with all that is theirs."""
    for start in range(0, len(ids), _AT_A_TIME):
        connection.execute(delete(runs).where(runs.c.id.in_(ids[start : start + _AT_A_TIME])))

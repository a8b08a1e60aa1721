"""A class's PostgreSQL, filled by each student's `lab forward`, tells what the students' files do."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_class import student_runs
from private_postgresql import Server
from store_promises import save

from lab.classroom.overview import overview_of
from lab.classroom.reading import read_files
from lab.classroom.stored import read_store
from lab.store.database import Store
from lab.store.export import to_json
from lab.store.forwarding import Destination


def test_what_was_forwarded_is_what_was_exported(
    request: pytest.FixtureRequest, postgresql: Server, tmp_path: Path
) -> None:
    url = postgresql.url(postgresql.make_database(request.node.nodeid))
    files = []
    for number in range(3):
        with Store.open(str(tmp_path / f"{number}.db")) as local:
            for record in list(student_runs(number, rounds=6))[:2]:
                save(local, record)
                files.append(tmp_path / f"{record.run.id}.json")
                files[-1].write_text(to_json(local.load(record.run.id)))
            assert len(Destination(url).send(local).sent) == 2
    forwarded, exported = overview_of(read_store(url)), overview_of(read_files(files))
    assert forwarded.runs == 6 and forwarded.machines == 3
    assert forwarded.charts and forwarded.charts == exported.charts

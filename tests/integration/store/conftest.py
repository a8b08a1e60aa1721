"""One PostgreSQL for the tests of a fleet's store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from private_postgresql import Server, private_server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    with private_server() as server:
        yield server

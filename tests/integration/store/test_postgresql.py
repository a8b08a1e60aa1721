"""A store on PostgreSQL keeps the same promises as a file."""

from __future__ import annotations

import pytest
from private_postgresql import Server
from store_promises import StorePromises
from store_promises_later import LaterPromises

from lab.errors import StoreError
from lab.store.database import Store


class TestPostgresql(StorePromises, LaterPromises):
    @pytest.fixture
    def url(self, request: pytest.FixtureRequest, postgresql: Server) -> str:
        return postgresql.url(postgresql.make_database(request.node.nodeid))


def test_postgresql_says_what_is_wrong(postgresql: Server) -> None:
    with pytest.raises(StoreError, match=r'does not .*database "nowhere" does not exist'):
        Store.open(postgresql.url("nowhere"))

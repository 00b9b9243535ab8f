"""What the store understands of a database's URL."""

import pytest

from kgents.errors import Unprocessable
from kgents.store.engine import open_store, parse_url
from kgents.store.interface import Scope


@pytest.mark.parametrize(
    "url", ["postgresql://u:p@h/d", "postgresql+asyncpg://u:p@h/d", "postgresql+psycopg://u:p@h/d"]
)
def test_postgresql_is_always_reached_over_asyncpg(url):
    assert parse_url(url).drivername == "postgresql+asyncpg"


def test_a_sqlite_url_names_a_file():
    assert parse_url("sqlite:///folder/kgents.db").database == "folder/kgents.db"


@pytest.mark.parametrize(
    "url", ["", "kgents.db", "sqlite://", "sqlite:///:memory:", "mysql://u:hush@h/d", "postgresql://u:hush@h:port/d"]
)
def test_another_url_is_refused_without_repeating_it(url):
    with pytest.raises(Unprocessable) as raised:
        open_store(url)
    assert raised.value.code == "database-url"
    assert "hush" not in raised.value.detail


class TestScope:
    def test_a_group_names_each_tenant_once(self):
        assert Scope.tenants(["b", "a", "b"]) == Scope("a,b")

    def test_a_key_opens_no_tenant(self):
        assert Scope.key("k").setting == ""

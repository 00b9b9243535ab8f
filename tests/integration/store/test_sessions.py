"""What the server is asked to do for each connection."""

from kgents.store.engine import Scope, open_store
from tests.support.postgres import PostgresServer


async def test_no_statement_is_compiled(postgres: PostgresServer) -> None:
    name = postgres.create_database()
    store = open_store(postgres.app_url(name))
    try:
        assert await store.read(Scope.system(), lambda c: c.exec_driver_sql("SHOW jit").scalar_one()) == "off"
    finally:
        await store.close()
        postgres.drop_database(name)

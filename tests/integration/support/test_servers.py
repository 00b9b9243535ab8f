"""The servers that the other tests stand on are real, start afresh and survive a restart."""

from __future__ import annotations

import json
import signal
import socket

import httpx2
import nats as nats_py
import redis.asyncio as redis_py
import sqlalchemy as sa

from kgents.store.engine import PostgresStore, Scope, SqliteStore
from tests.support.nats import NatsServer
from tests.support.postgres import PostgresServer
from tests.support.redis import RedisServer


def count_tenants(connection: sa.Connection) -> int:
    return int(connection.execute(sa.text("SELECT count(*) FROM tenants")).scalar_one())


class TestStore:
    async def test_is_migrated_and_empty(self, store: SqliteStore | PostgresStore) -> None:
        assert await store.read(Scope.system(), count_tenants) == 0


class TestNats:
    async def test_keeps_a_stream_over_a_crash(self, nats: NatsServer) -> None:
        client = await nats_py.connect(nats.url, user=nats.user, password=nats.password)
        stream = client.jetstream()
        await stream.add_stream(name="KEPT", subjects=["kept"])
        await stream.publish("kept", b"1")
        await client.close()

        nats.stop(signal.SIGKILL)
        nats.start()

        client = await nats_py.connect(nats.url, user=nats.user, password=nats.password)
        assert (await client.jetstream().stream_info("KEPT")).state.messages == 1
        await client.close()

    async def test_syncs_every_message_to_disk(self, nats: NatsServer) -> None:
        async with httpx2.AsyncClient() as http:
            facts = (await http.get(f"{nats.monitor_url}/varz")).json()
        assert facts["jetstream"]["config"]["sync_always"] is True

    def test_refuses_a_wrong_password(self, nats: NatsServer) -> None:
        greeting = json.dumps({"user": nats.user, "pass": "wrong", "verbose": False, "pedantic": False})
        with socket.create_connection(("127.0.0.1", nats.port), timeout=5) as connection:
            lines = connection.makefile("rwb")
            assert lines.readline().startswith(b"INFO ")
            lines.write(f"CONNECT {greeting}\r\nPING\r\n".encode())
            lines.flush()
            assert lines.readline() == b"-ERR 'Authorization Violation'\r\n"
            lines.close()


class TestPostgres:
    def test_copies_are_of_their_own(self, postgres: PostgresServer) -> None:
        first, second = postgres.create_database(), postgres.create_database()
        postgres.sql(["CREATE TABLE mine (n int)"], first)
        assert postgres.sql(["SELECT to_regclass('mine') AS found"], second)[0][0]["found"] is None

    def test_the_roles_have_no_way_around_row_level_security(self, postgres: PostgresServer) -> None:
        rows = postgres.sql(["SELECT rolsuper OR rolbypassrls AS free FROM pg_roles WHERE rolname LIKE 'kgents%'"])[0]
        assert [row["free"] for row in rows] == [False, False]

    def test_survives_a_crash(self, postgres: PostgresServer) -> None:
        postgres.stop(signal.SIGQUIT)
        postgres.start()
        assert postgres.sql(["SELECT 1 AS one"])[0][0]["one"] == 1


class TestRedis:
    async def test_comes_back_empty_after_a_crash(self, redis: RedisServer) -> None:
        async with redis_py.from_url(redis.url) as client:
            await client.set("key", "value")
        redis.stop(signal.SIGKILL)
        redis.start()
        async with redis_py.from_url(redis.url) as client:
            assert await client.get("key") is None

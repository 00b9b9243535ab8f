"""Rate limits that API processes share in Redis or Valkey, and what happens while it is away."""

from __future__ import annotations

from pathlib import Path

from tests.integration.system.test_durability import hello
from tests.support.redis import RedisServer
from tests.support.up import Up
from tests.support.waiting import wait_until


def test_a_redis_that_goes_away_is_told_and_costs_no_request(redis: RedisServer, tmp_path: Path) -> None:
    up = Up(tmp_path / "data", environment={"KGENTS_REDIS_URL": redis.url}).start()
    try:
        assert up.component("rate_limits") == "connected"
        redis.stop()
        wait_until(lambda: up.component("rate_limits") == "degraded", seconds=5)
        with up.client() as client:
            client.post("/v1/chat/completions", json=hello()).raise_for_status()
        redis.start()
        wait_until(lambda: up.component("rate_limits") == "connected", seconds=5)
    finally:
        up.stop()

"""What the checks of `kgents ready` say of a running kgents, and of one that is broken."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from kgents.clock import SystemClock
from kgents.readiness.checks import service
from kgents.readiness.model import Broken, NotShown
from kgents.readiness.target import Target
from tests.support.replies import Asked, Reply, replying
from tests.support.up import Up
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("ready")).start()
    yield running
    running.stop()


@pytest.fixture
def target(up: Up) -> Iterator[Target]:
    with target_of(up) as made:
        yield made


def target_of(up: Up, **fields: Any) -> Target:
    with up.meter() as meter:
        token = meter.headers["Authorization"].removeprefix("Bearer ")
        address = str(meter.base_url)
    known = {"url": up.url, "admin_key": up.admin_key, "meter": address, "meter_token": token}
    return Target(SystemClock(), Path(), bytes, context="nowhere", **{**known, **fields})


def test_what_is_connected_is_told(target: Target) -> None:
    assert "nats connected" in service.connected(target).detail


def test_an_event_reaches_the_meter_once(target: Target) -> None:
    found = service.event_is_metered(target)
    assert found.seen["metered"] == found.seen["answered"]


def test_a_meter_that_counts_nothing_is_seen(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "COUNTED_WITHIN", 1.0)
    with (
        replying(lambda _: Reply(200, {"data": []})) as empty,
        target_of(up, meter=empty) as target,
        pytest.raises(Broken, match="the meter has"),
    ):
        service.event_is_metered(target)


def test_a_meter_that_counts_twice_is_seen(up: Up) -> None:
    asked: list[str] = []

    def twice(request: Asked) -> Reply:
        asked.append(request.path)
        return Reply(200, {"data": [{"value": 0 if len(asked) <= 3 else 2}]})

    with replying(twice) as wrong, target_of(up, meter=wrong) as target, pytest.raises(Broken, match="'runs': 2"):
        service.event_is_metered(target)


def test_a_second_count_that_comes_later_is_seen(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "AGAIN", 0.1)
    asked: list[str] = []

    def late(request: Asked) -> Reply:
        asked.append(request.path)
        value = 0 if len(asked) <= 3 else 1 if "/runs/" in request.path else 4
        return Reply(200, {"data": [{"value": value * (2 if len(asked) > 6 else 1)}]})

    with replying(late) as wrong, target_of(up, meter=wrong) as target, pytest.raises(Broken, match="'runs': 2"):
        service.event_is_metered(target)
    assert len(asked) == 9


def test_a_meter_that_is_not_there_shows_nothing(up: Up) -> None:
    with target_of(up, meter="http://127.0.0.1:9") as target, pytest.raises(NotShown):
        service.event_is_metered(target)


def test_no_operation_answers_without_a_key(target: Target) -> None:
    assert service.keys_are_asked_for(target).seen["operations"] > 30


def test_tenants_are_apart(target: Target) -> None:
    assert service.tenants_are_apart(target).seen["asked"] > 4


def test_what_checks_made_is_deleted_afterwards(up: Up) -> None:
    with target_of(up) as target:
        mine = target.tenant().id
    with up.admin() as admin:
        assert admin.get(f"/v1/tenants/{mine}").json()["status"] == "deleted"


def test_a_tenant_that_can_not_be_deleted_is_named_and_ends_nothing() -> None:
    made = {"id": "ten_1", "token": "kg_a_b"}
    with (
        replying(lambda asked: Reply(503 if asked.method == "PATCH" else 200, made)) as url,
        Target(SystemClock(), Path(), bytes, context="nowhere", url=url, admin_key="kg_c_d") as target,
    ):
        target.tenant()
    (left,) = target.left_behind
    assert left.startswith(f"ten_1 (PATCH {url}/v1/tenants/ten_1 answers 503")


def test_a_tenant_that_could_not_be_made_ready_is_deleted_too() -> None:
    asked: list[str] = []

    def reply(request: Asked) -> Reply:
        asked.append(f"{request.method} {request.path}")
        return Reply(503 if "api-keys" in request.path else 200, {"id": "ten_1"})

    with (
        replying(reply) as url,
        Target(SystemClock(), Path(), bytes, url=url, admin_key="kg_c_d") as target,
        pytest.raises(NotShown),
    ):
        target.tenant()
    assert asked[-1] == "PATCH /v1/tenants/ten_1"


def test_without_an_administrators_key_nothing_is_shown(up: Up) -> None:
    with target_of(up, admin_key="") as target, pytest.raises(NotShown, match="KGENTS_ADMIN_KEY"):
        service.tenants_are_apart(target)


def open_to_all(up: Up) -> Any:
    """A proxy that asks as the first who asked for an object, whoever asks."""
    keys: dict[str, str] = {}

    def reply(request: Asked) -> Reply:
        key = request.headers.get("authorization", f"Bearer {up.key}")
        if request.method == "GET" and key != f"Bearer {up.admin_key}":
            key = keys.setdefault(request.path, key)
        headers = {"Authorization": key, "Content-Type": request.headers.get("content-type", "application/json")}
        with httpx2.Client(base_url=up.url, trust_env=False, timeout=30) as http:
            found = http.request(request.method, request.path, content=request.body, headers=headers)
        return Reply(found.status_code, found.text, {"Content-Type": found.headers.get("content-type", "")})

    return replying(reply)


def test_a_way_in_that_mixes_tenants_up_is_seen(up: Up) -> None:
    with open_to_all(up) as proxy, target_of(up, url=proxy) as target, pytest.raises(Broken, match="200"):
        service.tenants_are_apart(target)


def test_a_way_in_that_lends_its_own_key_is_seen(up: Up) -> None:
    with open_to_all(up) as proxy, target_of(up, url=proxy) as target, pytest.raises(Broken, match="not refused"):
        service.keys_are_asked_for(target)


@pytest.mark.parametrize("answer", ["<html>", {"status": "ok"}, ["ok"]])
def test_what_is_no_health_page_shows_nothing(up: Up, answer: Any) -> None:
    with (
        replying(lambda _: Reply(200, answer)) as stranger,
        target_of(up, url=stranger) as target,
        pytest.raises(NotShown),
    ):
        service.connected(target)


def test_a_health_page_that_is_ok_without_the_bus_is_a_fail(up: Up) -> None:
    page = {"status": "ok", "components": {"sql": {"status": "connected"}, "meter": {"status": "connected"}}}
    with (
        replying(lambda _: Reply(200, page)) as lying,
        target_of(up, url=lying) as target,
        pytest.raises(Broken, match="nats is not there"),
    ):
        service.connected(target)


def test_a_bus_that_is_away_is_seen(up: Up, target: Target) -> None:
    os.kill(up.pid("nats"), signal.SIGSTOP)
    try:
        wait_until(lambda: up.component("nats") != "connected", seconds=20, what="the bus is away")
        with pytest.raises(Broken, match="nats is"):
            service.connected(target)
    finally:
        os.kill(up.pid("nats"), signal.SIGCONT)
        wait_until(lambda: up.component("nats") == "connected", seconds=30, what="the bus is back")

"""The load while something is broken: what sent too little, or broke off, is told from what failed nothing."""

from __future__ import annotations

import asyncio
import threading

import pytest

from kgents.readiness import steady
from kgents.readiness.steady import Steady
from tests.support.replies import Reply, replying
from tests.support.waiting import wait_until

NOWHERE = "http://127.0.0.1:9"


def test_a_load_that_kept_its_rate_lacks_nothing() -> None:
    with replying(lambda _: Reply(200, {})) as url, Steady(url, "key", rate=50) as load:
        wait_until(lambda: load.sent >= 20, what="twenty are sent")
    assert (load.failed, load.lacking) == ([], "")


def test_what_is_not_answered_with_200_has_failed() -> None:
    with replying(lambda _: Reply(503, "away")) as url, Steady(url, "key", rate=50) as load:
        wait_until(lambda: load.failed, what="one has failed")
    assert load.failed[0] == "request 1: 503 away"


@pytest.mark.parametrize("base", ["http://fd00::1:80", "http://[fd00::1"])
def test_a_load_that_never_began_lacks_all(base: str) -> None:
    with Steady(base, "key", rate=50) as load:
        pass
    assert load.lacking.startswith("The load broke off: InvalidURL")


def test_a_load_that_broke_off_says_by_what(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise LookupError("a defect")

    monkeypatch.setattr(Steady, "_ask", broken)
    with Steady(NOWHERE, "key", rate=50) as load:
        wait_until(lambda: load._error, what="it breaks off")
    assert load.lacking == "The load broke off: LookupError: a defect."


def test_requests_that_stay_open_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    async def open_(*_: object) -> None:
        await asyncio.to_thread(ended.wait)

    monkeypatch.setattr(Steady, "_ask", open_)
    monkeypatch.setattr(steady, "PATIENCE", 0.1)
    with Steady(NOWHERE, "key", rate=50) as load:
        wait_until(lambda: load.sent, what="one is sent")
    ended.set()
    assert load.lacking.startswith("Some requests were still open")


def test_a_load_that_sent_too_little_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def idle(self: Steady) -> None:
        self._begun.set()

    monkeypatch.setattr(Steady, "_run", idle)
    with Steady(NOWHERE, "key", rate=50) as load:
        pass
    assert load.lacking == "Only 0 of 1 requests were sent in time."

"""Processes are killed while invoices go to Stripe and webhooks come from it: each is there once, as it is here."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any

import httpx2
import pytest

from tests.faults.systems import FULL, new_seed, running
from tests.support.results import record
from tests.support.stripe import FakeStripe, Misbehaviour, Request
from tests.support.stripe_parameters import Refused
from tests.support.up import Up
from tests.support.waiting import wait_until

SECRET = "whsec_of_the_tests"
INVOICES, EVENTS, ROUNDS = (100, 5_000, 10) if FULL else (4, 100, 2)
TIMES = 3  # that each event is sent
SENDERS = 8
Plan = Callable[[Request, Random], Misbehaviour | None]
BAD: tuple[Misbehaviour, ...] = ("cut-before", "cut-after", "500-after", "429")


@dataclass(slots=True)
class Billed:
    """Tenants with one invoice each, of a kgents whose Stripe soon forgets under which key it has done what."""

    up: Up
    stripe: FakeStripe
    random: Random
    tenants: list[str] = field(default_factory=list)
    kills: int = 0

    def bill(self, count: int) -> None:
        """Have so many invoices made."""
        with self.up.admin() as admin:
            plan = {"name": f"plan-{len(self.tenants)}", "currency": "eur", "monthly_fee": 10**11}
            made = admin.post("/v1/plans", json=plan).raise_for_status().json()["id"]
            for number in range(count):
                name = {"name": f"tenant-{len(self.tenants)}-{number}"}
                tenant = admin.post("/v1/tenants", json=name).raise_for_status().json()["id"]
                path = f"/v1/tenants/{tenant}/subscription"
                admin.put(path, json={"plan": made}).raise_for_status()
                admin.delete(path).raise_for_status()
                self.tenants.append(tenant)

    def invoice(self, admin: httpx2.Client, tenant: str) -> dict[str, Any]:
        """The tenant's invoice, as kgents has it; empty while there is none, or nobody answers."""
        try:
            found = admin.get(f"/v1/tenants/{tenant}/invoices").raise_for_status().json()["data"]
        except httpx2.HTTPError:
            return {}
        assert len(found) < 2, f"{tenant} has more than one invoice: {found}"
        return dict(found[0]) if found else {}

    def at_stripe(self, admin: httpx2.Client, tenant: str) -> Any:
        """Under which id the tenant's invoice is at Stripe, if kgents knows it to be there."""
        return self.invoice(admin, tenant).get("stripe_id")

    def all_sent(self) -> None:
        """Wait until every invoice is at Stripe."""
        with self.up.admin() as admin:
            for tenant in self.tenants:
                sent = partial(self.at_stripe, admin, tenant)
                wait_until(sent, seconds=180, what=f"the invoice of {tenant} is at Stripe")

    @contextmanager
    def killing(self, *names: str) -> Iterator[None]:
        """Kill one of the processes again and again."""
        over = Event()

        def work() -> None:
            while not over.wait(self.random.uniform(0.3, 3.0)):
                with suppress(ProcessLookupError, KeyError, FileNotFoundError):
                    os.kill(self.up.pid(self.random.choice(names)), signal.SIGKILL)
                    self.kills += 1

        thread = Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def change(self, count: int, *, last: bool) -> None:
        """Have so many events come of what is done at Stripe. One invoice stays open until the last time."""
        until = len(self.stripe.events) + count
        kept, *others = (each["id"] for each in self.stripe.invoices.values() if each["status"] != "draft")
        if last:
            self.stripe.pay(kept)
        while len(self.stripe.events) < until:
            step = self.random.choices(("edit", "pay", "void", "mark_uncollectible"), (20, 1, 1, 2))[0]
            with suppress(Refused):  # that can't become of it any more
                getattr(self.stripe, step)(self.random.choice([kept, *others] if step == "edit" else others))

    def deliver(self, events: list[Any]) -> int:
        """Have events come in as Stripe sends them: in any order, several times, and again until they are taken. It
        answers how often.
        """
        waiting = deque(events * TIMES)
        self.random.shuffle(waiting)
        sent = 0

        def send() -> None:
            nonlocal sent
            with httpx2.Client(base_url=self.up.url, trust_env=False, timeout=10) as http:
                while waiting:
                    try:
                        event = waiting.popleft()
                    except IndexError:
                        return
                    body, signature = self.stripe.signed(event, SECRET)
                    sent += 1
                    try:
                        answer = http.post("/webhooks/stripe", content=body, headers={"Stripe-Signature": signature})
                    except httpx2.HTTPError:
                        answer = None
                    if answer is None or answer.status_code in (502, 503):
                        waiting.append(event)
                        time.sleep(0.05)
                    else:
                        assert answer.status_code == 204, answer.text

        with ThreadPoolExecutor(SENDERS) as pool:
            for outcome in [pool.submit(send) for _ in range(SENDERS)]:
                outcome.result()
        return sent

    def violations(self, seconds: float) -> list[str]:
        """Where kgents and Stripe disagree, after so many seconds at most."""
        found: list[str] = []
        with self.up.admin() as admin:
            until = time.monotonic() + seconds
            for tenant in self.tenants:
                there = [
                    each
                    for each in self.stripe.invoices.values()
                    if each["metadata"].get("kgents_tenant") == tenant and each["status"] != "draft"
                ]
                if len(there) != 1:
                    found.append(f"{tenant} is asked to pay {len(there)} times")
                    continue
                while True:
                    here = self.invoice(admin, tenant)
                    ours = {name: here.get(name) for name in ("status", "total", "stripe_id")}
                    theirs = {"status": there[0]["status"], "total": there[0]["total"], "stripe_id": there[0]["id"]}
                    if ours == theirs or time.monotonic() > until:
                        break
                    time.sleep(0.1)
                if ours != theirs:
                    found.append(f"{tenant}: {ours} here, {theirs} at Stripe")
        return found


@contextmanager
def billed(dialect: str, folder: Path, seed: int, control: str = "", forget_after: float = 5.0) -> Iterator[Billed]:
    """A kgents that Stripe collects for, which forgets keys after so many seconds."""
    with FakeStripe() as stripe:
        stripe.forget_after = forget_after
        settings = {
            "KGENTS_INVOICE_DELAY": "0",
            "KGENTS_STRIPE_API_KEY": stripe.api_key,
            "KGENTS_STRIPE_URL": stripe.url,
            "KGENTS_STRIPE_WEBHOOK_SECRET": SECRET,
        }
        with running(dialect, folder / "data", control=control, **settings) as system:
            yield Billed(system.up, stripe, Random(seed))


def often(_request: Request, chance: Random) -> Misbehaviour | None:
    """Every fifth request goes wrong in one way or another."""
    return chance.choice(BAD) if chance.random() < 0.2 else None


def lost_answers(request: Request, chance: Random) -> Misbehaviour | None:
    """That an invoice is final is mostly not heard of."""
    return "cut-after" if request.path.endswith("/finalize") and chance.random() < 0.7 else None


def torture(
    dialect: str,
    folder: Path,
    seed: int,
    control: str = "",
    *,
    plan: Plan = often,
    victims: Sequence[str] = ("api", "worker"),
    forget_after: float = 5.0,
    seconds: float = 60,
) -> list[str]:
    """Break the way to Stripe as planned, and the way back by killing the victims, and see what came of it."""
    with billed(dialect, folder, seed, control, forget_after) as world:
        chance = Random(f"{seed}/stripe")
        world.stripe.misbehave(lambda request: plan(request, chance))
        with world.killing("worker"):
            world.bill(INVOICES)
            world.all_sent()
        sent, told = 0, 0
        for number in range(1, ROUNDS + 1):
            world.change(EVENTS * number // ROUNDS - len(world.stripe.events), last=number == ROUNDS)
            events = list(world.stripe.events[told:])
            told += len(events)
            with world.killing(*victims):
                sent += world.deliver(events)
        found = world.violations(seconds)
        record(
            "An invoice is at Stripe once, and what becomes of it there comes back"
            + (f", control: {control}" if control else ""),
            "tests/faults/test_stripe.py",
            f"{dialect}: {INVOICES} invoices, of {len(world.stripe.requests):,} requests to Stripe a part "
            f"went wrong; {told:,} events in any order, sent {sent:,} times; {world.kills} kill -9 of API and worker: "
            f"{len(found)} violations",
            seed,
        )
        return found


@pytest.mark.parametrize("dialect", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_stripe_and_kgents_agree_whatever_is_killed(tmp_path: Path, dialect: str) -> None:
    assert torture(dialect, tmp_path, new_seed()) == []


def test_who_does_not_look_again_is_found_out(tmp_path: Path) -> None:
    found = torture("sqlite", tmp_path, new_seed(), "no look at Stripe", victims=["api"], seconds=10)
    assert any("at Stripe" in each for each in found), found


def test_who_does_not_look_before_making_is_found_out(tmp_path: Path) -> None:
    found = torture(
        "sqlite", tmp_path, new_seed(), "no look before making", plan=lost_answers, forget_after=0.0, seconds=10
    )
    assert any("times" in each for each in found), found

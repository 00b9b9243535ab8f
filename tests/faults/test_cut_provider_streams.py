"""Streams of an OpenAI-compatible provider are cut at random bytes, by the client or by the provider: metered is what
the provider reported, to the token; where it broke off without a report, what was received, as an estimate.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any, Literal

import pytest

from kgents.agents.models.tokens import count_tokens
from tests.faults.provider import PREFIX, Provider, Sent, a_provider
from tests.faults.streams import all_ended, ask_all, chat, response
from tests.faults.systems import FULL, new_seed, running
from tests.support.reached import METERS
from tests.support.results import record
from tests.support.tenants import Tenant, tenant_of
from tests.support.waiting import wait_until

STREAMS = 1000 if FULL else 60
LENGTH = 12_000  # bytes, about, of a whole stream of chat completions
COMMAND = "tests/faults/test_cut_provider_streams.py"
DIALECTS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]

Cutter = Literal["client", "provider"]


class Account:
    """What each stream was metered with, beside what the provider said."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.violations = [f"stream {number} was asked for twice" for number in provider.asked_twice]
        self.reported = self.estimated = self.unheard = 0
        self.metered = dict.fromkeys(METERS, 0)
        self.difference = 0

    def check(self, tenant: Tenant) -> None:
        """Compare each run with its stream."""
        events: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for event in tenant.all("/v1/usage/events"):
            events[event["run_id"]].append(event)
            self.metered[event["meter"]] += event["quantity"]
        silent = {number for number, states in self._provider.sent.items() if not all(one.text for one in states)}
        for run in tenant.all("/v1/runs"):
            text = str((run["output"] or {}).get("text") or "")
            used = {event["meter"]: event["quantity"] for event in events[run["id"]]}
            estimated = {event["estimated"] for event in events[run["id"]]}
            if not text:
                # A provider charges for no answer of which it did not send a word.
                self.unheard += 1
                if not silent or used:
                    self.violations.append(f"{run['id']} has no answer, and {used} (of {len(silent)} such streams)")
                continue
            number = int(text.split()[0].removeprefix("s"))
            states = self._provider.sent.pop(number, [])
            self._compare(number, text, used, estimated, states)
        left = {number for number in self._provider.sent if number not in silent}
        if left or len(self._provider.sent) != self.unheard:
            self.violations.append(f"{len(self._provider.sent)} streams and {self.unheard} runs without a word: {left}")

    def _compare(self, number: int, text: str, used: dict[str, int], estimated: set[bool], states: list[Sent]) -> None:
        asked = count_tokens(f"{PREFIX} {number}")
        found = (used.get("runs"), used.get("input_tokens"), used.get("output_tokens"), estimated)
        possible = []
        for state in states:
            if state.text == text:
                tokens = state.reported or (asked, count_tokens(text))
                possible.append((1, *tokens, {state.reported is None}))
        if found not in possible:
            self.violations.append(f"stream {number}: metered {found}, possible is {possible} for {text!r}")
        self.estimated += True in estimated
        self.reported += False in estimated


def cut(dialect: str, folder: Path, cutter: Cutter, control: str = "") -> Account:
    """Cut the streams, and account for them."""
    seed = new_seed()
    random = Random(seed)
    asks = []
    for number in range(STREAMS):
        after = random.randrange(1, LENGTH) if cutter == "client" else None
        asks.append((chat, response)[number % 2]("provided", f"{PREFIX} {number}", after))
    with a_provider(seed, cutting=cutter == "provider") as provider:
        settings = {"KGENTS_PROVIDERS__x__BASE_URL": provider.url}
        with (
            running(dialect, folder / "data", control=control, **settings) as system,
            tenant_of(system.up) as tenant,
        ):
            tenant.agent(name="provided", model="x:m")
            asyncio.run(ask_all(tenant, asks))
            wait_until(lambda: all_ended(tenant), seconds=60, what="all runs have ended")
            system.up.settled()
            account = Account(provider)
            account.check(tenant)
            expected = account.metered
            wait_until(lambda: system.up.metered(tenant.id) == expected, seconds=20, what=f"the meter has {expected}")
            assert tenant.balance() == expected
            assert not any(tenant.balance("reserved").values())
    print(f"{dialect}: {account.reported} as reported, {account.estimated} estimated, {account.unheard} without a word")
    record(
        "Streams of a provider that are cut are billed correctly" + (f", control: {control}" if control else ""),
        COMMAND,
        f"{dialect}, cut by the {cutter}: {STREAMS:,} streams (chat completions and responses) cut at random bytes: "
        f"{account.reported:,} metered as reported, {account.estimated:,} as received and marked as estimated, "
        f"{account.unheard:,} without a word and not metered; {len(account.violations)} violations",
        seed,
    )
    return account


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stream_that_its_client_leaves_is_metered_as_the_provider_reports(tmp_path: Path, dialect: str) -> None:
    account = cut(dialect, tmp_path, "client")
    assert not account.violations, "\n".join(account.violations[:10])
    assert account.reported == STREAMS


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stream_that_its_provider_breaks_off_is_metered_as_received(tmp_path: Path, dialect: str) -> None:
    account = cut(dialect, tmp_path, "provider")
    assert not account.violations, "\n".join(account.violations[:10])
    assert account.estimated


@pytest.mark.parametrize(
    ("cutter", "control"), [("client", "no usage of the absent"), ("provider", "no usage of what broke off")]
)
def test_a_kgents_that_does_not_meter_what_was_cut_is_found_out(tmp_path: Path, cutter: Cutter, control: str) -> None:
    assert cut("sqlite", tmp_path, cutter, control).violations

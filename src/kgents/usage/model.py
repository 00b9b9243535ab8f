"""Usage: what is counted, and the arithmetic of balances. Quantities are exact integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Amounts(NamedTuple):
    """A quantity of each meter, in the order of `METERS`."""

    runs: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    tool_calls: int = 0

    def plus(self, other: Amounts) -> Amounts:
        """The sum, meter by meter."""
        return Amounts(self[0] + other[0], self[1] + other[1], self[2] + other[2], self[3] + other[3])

    def minus(self, other: Amounts) -> Amounts:
        """The difference, meter by meter."""
        return Amounts(self[0] - other[0], self[1] - other[1], self[2] - other[2], self[3] - other[3])


METERS = Amounts._fields
NOTHING = Amounts()


class UsageEvent(NamedTuple):
    """One quantity of one meter, written with the work that it measures.

    `event_id` is `<run id>:<step>:<meter>`, so that the same work can never be counted twice, whoever retries it.
    `estimated` marks a quantity that the model did not report itself, for instance because the call was cut off.
    """

    event_id: str
    tenant_id: str
    meter: str
    quantity: int
    run_id: str
    agent_id: str
    model: str
    estimated: bool
    occurred_at: int


@dataclass(frozen=True, slots=True)
class Balance:
    """A tenant's month: per meter what was used, what running work has reserved, and the limit if there is one."""

    tenant_id: str
    period: str
    used: Amounts
    reserved: Amounts
    limits: dict[str, int]

    def room_for(self, wanted: Amounts) -> str | None:
        """The first meter for which `wanted` does not fit under its limit, or None when all of it fits."""
        for meter, used, reserved, more in zip(METERS, self.used, self.reserved, wanted, strict=True):
            limit = self.limits.get(meter)
            if limit is not None and more > 0 and used + reserved + more > limit:
                return meter
        return None


def event_id(run_id: str, step: int, meter: str) -> str:
    """The id of the one usage event of a meter in a step of a run."""
    return f"{run_id}:{step}:{meter}"


def events_of(
    used: Amounts, *, tenant_id: str, run_id: str, step: int, agent_id: str, model: str, estimated: bool, now: int
) -> list[UsageEvent]:
    """The usage events of a step: one for each meter that it used."""
    return [
        UsageEvent(event_id(run_id, step, meter), tenant_id, meter, quantity, run_id, agent_id, model, estimated, now)
        for meter, quantity in zip(METERS, used, strict=True)
        if quantity > 0
    ]

"""`/v1/usage`: what the tenant used, exactly as the ledger has it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from kgents.api.call import Call, UsageRead
from kgents.api.json_route import JsonRoute
from kgents.api.paging import Cursor, Limit, Page, page_of
from kgents.api.problems import PROBLEMS
from kgents.api.unit import read
from kgents.clock import month_bounds, month_of, to_rfc3339
from kgents.errors import InvalidRequest, Unprocessable
from kgents.usage import service
from kgents.usage.model import METERS, UsageEvent
from kgents.usage.service import Group, UsageRow, Window

router = APIRouter(tags=["Usage"], route_class=JsonRoute)

MeterName = Literal["", "runs", "input_tokens", "output_tokens", "tool_calls"]
Meter = Annotated[MeterName, Query(description="One meter; all by default.")]
From = Annotated[str, Query(alias="from", max_length=40, description="RFC 3339, or a day; this month by default.")]
To = Annotated[str, Query(alias="to", max_length=40, description="RFC 3339, or a day; now by default.")]
MOST_YEARS = 3


class UsageWindow(BaseModel):
    """What a meter counted in a window."""

    meter: str
    window_start: str
    agent: str | None
    model: str | None
    quantity: int


class UsageReport(BaseModel):
    """Sums of usage events, exact to the token."""

    model_config = ConfigDict(populate_by_name=True)

    object: Literal["usage"] = "usage"
    from_: Annotated[str, Field(alias="from")]
    to: str
    window: Window
    data: list[UsageWindow]


class UsageEventDocument(BaseModel):
    """One usage event. `estimated`: the model did not report it itself, for instance because the call was cut off."""

    object: Literal["usage_event"] = "usage_event"
    id: str
    meter: str
    quantity: int
    run_id: str
    agent_id: str
    model: str
    estimated: bool
    occurred_at: str


class MeterBalance(BaseModel):
    """A meter's month. Without a limit, `limit` and `remaining` are null."""

    meter: str
    used: int
    reserved: int
    limit: int | None
    remaining: int | None


class BalanceDocument(BaseModel):
    """The current month (UTC)."""

    object: Literal["balance"] = "balance"
    period: str
    meters: list[MeterBalance]


def _range(call: Call, start: str, end: str) -> tuple[int, int]:
    now = call.now()
    try:
        first = service.parse_moment(start) if start else month_bounds(month_of(now))[0]
        last = service.parse_moment(end) if end else now + 1
    except ValueError as error:
        raise InvalidRequest(
            "from and to must be RFC 3339 times with an offset, such as 2026-11-01T00:00:00Z, or days.", param="from"
        ) from error
    if first > last:
        raise Unprocessable("from must not be after to.", param="from")
    if last - first > MOST_YEARS * 366 * service.LENGTHS["day"]:
        raise Unprocessable(f"from and to may be {MOST_YEARS} years apart at most.", param="from")
    return first, last


def _group_by(value: str) -> tuple[Group, ...]:
    names = [name for name in value.split(",") if name]
    groups: list[Group] = []
    for name in names:
        if name == "agent":
            groups.append("agent")
        elif name == "model":
            groups.append("model")
        else:
            raise Unprocessable(f"group_by must be agent, model, or both with a comma; {name[:40]!r} is not.")
    return tuple(dict.fromkeys(groups))


def _window(row: UsageRow) -> UsageWindow:
    return UsageWindow(
        meter=row.meter,
        window_start=to_rfc3339(row.window_start),
        agent=row.agent,
        model=row.model,
        quantity=row.quantity,
    )


@router.get(
    "/v1/usage", operation_id="query_usage", summary="Query usage", response_model=UsageReport, responses=PROBLEMS
)
async def query_usage(
    call: UsageRead,
    meter: Meter = "",
    start: From = "",
    end: To = "",
    window: Window = "day",
    group_by: Annotated[
        str, Query(pattern=r"^$|^(agent|model)(,(agent|model))?$", description="agent, model, or agent,model.")
    ] = "",
) -> UsageReport:
    """Sums by meter and UTC window, and by agent and model where asked."""
    first, last = _range(call, start, end)
    groups = _group_by(group_by)
    meters = (meter,) if meter else METERS
    rows = await read(
        call,
        lambda connection: service.query(
            connection, call.tenant_id, start=first, end=last, window=window, meters=meters, group_by=groups
        ),
    )
    return UsageReport(from_=to_rfc3339(first), to=to_rfc3339(last), window=window, data=[_window(row) for row in rows])


def _event(event: UsageEvent) -> UsageEventDocument:
    return UsageEventDocument(
        id=event.event_id,
        meter=event.meter,
        quantity=event.quantity,
        run_id=event.run_id,
        agent_id=event.agent_id,
        model=event.model,
        estimated=event.estimated,
        occurred_at=to_rfc3339(event.occurred_at),
    )


@router.get(
    "/v1/usage/events",
    operation_id="list_usage_events",
    summary="List usage events",
    response_model=Page[UsageEventDocument],
    responses=PROBLEMS,
)
async def list_usage_events(
    call: UsageRead,
    meter: Meter = "",
    run: Annotated[str, Query(max_length=64, description="Only this run's.")] = "",
    start: From = "",
    end: To = "",
    limit: Limit = 20,
    after: Cursor = "",
) -> Page[UsageEventDocument]:
    """The tenant's usage events, oldest first."""
    first, last = _range(call, start, end)
    found = await read(
        call,
        lambda connection: service.events(
            connection,
            call.tenant_id,
            start=first,
            end=last,
            after=after,
            limit=limit + 1,
            meter=meter,
            run_id=run,
        ),
    )
    return page_of([_event(event) for event in found], limit)


@router.get(
    "/v1/usage/balance",
    operation_id="get_balance",
    summary="Get this month's balance",
    response_model=BalanceDocument,
    responses=PROBLEMS,
)
async def get_balance(call: UsageRead) -> BalanceDocument:
    """What was used this month, what running work has reserved, and what is left."""
    found = await read(call, lambda connection: service.balance(connection, call.tenant_id, call.now()))
    meters = []
    for meter, used, reserved in zip(METERS, found.used, found.reserved, strict=True):
        limit = found.limits.get(meter)
        remaining = None if limit is None else max(0, limit - used - reserved)
        meters.append(MeterBalance(meter=meter, used=used, reserved=reserved, limit=limit, remaining=remaining))
    return BalanceDocument(period=found.period, meters=meters)

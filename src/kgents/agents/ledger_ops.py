"""The two writes of a run's life, made for groups of runs at once: admission, and the record of a step.

Both keep the promise that work and its measure are one transaction: a run is inserted with its reservation, and a
step's result with its usage events, balances and outbox rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from kgents.agents import repository
from kgents.agents.model import Output, Run, RunStatus
from kgents.agents.repository import Counts, End
from kgents.clock import month_of
from kgents.errors import Conflict, KgentsError, NotFound, QuotaExceeded, Unprocessable
from kgents.store import outbox
from kgents.store.bulk import Lookup
from kgents.store.tables import idempotency_keys, runs
from kgents.store.upsert import insert
from kgents.telemetry.trace_context import members
from kgents.telemetry.traces import recorded
from kgents.usage import ledger
from kgents.usage.ledger import Posting
from kgents.usage.model import NOTHING, Amounts, events_of

MAX_KEY_LENGTH = 255


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The caller's `Idempotency-Key` and what it stands for: a hash of route and body."""

    key: str
    fingerprint: bytes
    expires_at: int


class Admission(NamedTuple):
    """A run that asks to start (or, in the background mode, to be queued)."""

    run: Run
    idempotency: IdempotencyKey | None = None


class Admitted(NamedTuple):
    """The run was recorded, or `replay_of` names the earlier run that the same idempotency key started."""

    replay_of: str | None = None


class Admit:
    """Insert runs with their reservations. Refuses one with QuotaExceeded, Conflict, NotFound or Unprocessable."""

    def __init__(self, source: str) -> None:
        self._source = source

    def tenant_of(self, item: Admission) -> str:
        return item.run.tenant_id

    def apply(self, connection: Connection, items: Sequence[Admission]) -> list[Admitted | KgentsError]:
        results: list[Admitted | KgentsError | None] = [None] * len(items)
        claimed = self._claim_keys(connection, items, results)
        self._check_sessions(connection, items, results)
        open_ = [index for index, result in enumerate(results) if result is None]
        refusals = ledger.post(
            connection,
            [
                Posting(
                    items[index].run.tenant_id, items[index].run.created_at, reserve=Amounts(*items[index].run.reserved)
                )
                for index in open_
            ],
            source=self._source,
        )
        admitted: list[Run] = []
        queued: list[outbox.NewRow] = []
        for index, refusal in zip(open_, refusals, strict=True):
            item = items[index]
            if refusal is not None:
                results[index] = refusal
                continue
            results[index] = Admitted()
            admitted.append(item.run)
            if item.run.status == "queued":
                queued.append(
                    queue_row(
                        *(item.run.tenant_id, item.run.run_id, item.run.attempt, item.run.created_at),
                        context=recorded(item.run.traceparent),
                    )
                )
        repository.insert_runs(connection, admitted)
        unused = [name for name, index in claimed.items() if isinstance(results[index], KgentsError)]
        if unused:
            connection.execute(
                sa.delete(idempotency_keys).where(
                    sa.tuple_(idempotency_keys.c.tenant_id, idempotency_keys.c.key).in_(unused)
                )
            )
        outbox.add_many(connection, queued)
        return [result for result in results if result is not None]

    def _claim_keys(
        self, connection: Connection, items: Sequence[Admission], results: list[Admitted | KgentsError | None]
    ) -> dict[tuple[str, str], int]:
        """Insert the items' keys, and answer those whose key was there. Gives the index of the item that has each key.

        The key is claimed before anything else is done, so that of two transactions at the same time one waits here
        for the other's end; in the order of the keys, so that no two wait for each other.
        """
        wanted: dict[tuple[str, str], list[tuple[int, IdempotencyKey]]] = {}
        for index, item in enumerate(items):
            if item.idempotency:
                wanted.setdefault((item.run.tenant_id, item.idempotency.key), []).append((index, item.idempotency))
        if not wanted:
            return {}
        names = sorted(wanted)
        now = min(items[same[0][0]].run.created_at for same in wanted.values())
        connection.execute(
            sa.delete(idempotency_keys).where(
                sa.tuple_(idempotency_keys.c.tenant_id, idempotency_keys.c.key).in_(names),
                idempotency_keys.c.expires_at <= now,
            )
        )
        inserted = connection.execute(
            insert(connection, idempotency_keys)
            .values([_key_row(items[index].run, key) for index, key in (wanted[name][0] for name in names)])
            .on_conflict_do_nothing()
            .returning(idempotency_keys.c.tenant_id, idempotency_keys.c.key)
        )
        mine = {(row.tenant_id, row.key) for row in inserted}
        taken = [name for name in names if name not in mine]
        found = (
            connection.execute(
                sa.select(idempotency_keys).where(
                    sa.tuple_(idempotency_keys.c.tenant_id, idempotency_keys.c.key).in_(taken)
                )
            )
            if taken
            else ()
        )
        rows = {(row.tenant_id, row.key): row for row in found}
        for name in taken:
            for index, key in wanted[name]:
                row = rows.get(name)
                if row is None:  # it has expired at this moment
                    results[index] = key_in_use()
                else:
                    results[index] = check_key(row.fingerprint, key) or Admitted(replay_of=row.run_id)
        for name in mine:
            (_, first), *others = wanted[name]
            for index, key in others:
                results[index] = check_key(first.fingerprint, key) or key_in_use()
        return {name: wanted[name][0][0] for name in mine}

    def _check_sessions(
        self, connection: Connection, items: Sequence[Admission], results: list[Admitted | KgentsError | None]
    ) -> None:
        wanted = {
            index: session_id
            for index, item in enumerate(items)
            if results[index] is None and (session_id := item.run.session_id)
        }
        if not wanted:
            return
        tenants = {items[index].run.tenant_id for index in wanted}
        live = repository.live_sessions(connection, tenants, wanted.values())
        busy = repository.busy_sessions(connection, tenants, wanted.values())
        for index, session_id in wanted.items():
            if (items[index].run.tenant_id, session_id) not in live:
                results[index] = no_session(session_id)
            elif session_id in busy:
                results[index] = Conflict(
                    f"Session {session_id} has a run that is not finished. Wait for it or cancel it; a session does "
                    "one run at a time.",
                    code="session-busy",
                )
            busy.add(session_id)


def _key_row(run: Run, key: IdempotencyKey) -> dict[str, Any]:
    return {
        "tenant_id": run.tenant_id,
        "key": key.key,
        "fingerprint": key.fingerprint,
        "run_id": run.run_id,
        "created_at": run.created_at,
        "expires_at": key.expires_at,
    }


def no_session(session_id: str) -> NotFound:
    """The refusal for a session that isn't there (or is another tenant's)."""
    return NotFound(f"There is no session {session_id!r}. List yours with GET /v1/sessions.")


def check_key(stored: bytes, key: IdempotencyKey) -> KgentsError | None:
    """The refusal when the same key comes with another request."""
    if stored != key.fingerprint:
        return Unprocessable(
            "This Idempotency-Key was used with a different request. Use a new key for a new request.",
            code="idempotency-key-reused",
        )
    return None


def run_of_key(connection: Connection, tenant_id: str, key: IdempotencyKey, now: int) -> str | None:
    """The run that the same request with this key has started, if one has. Raises Unprocessable as `check_key`."""
    row = connection.execute(
        sa.select(idempotency_keys).where(
            idempotency_keys.c.tenant_id == tenant_id,
            idempotency_keys.c.key == key.key,
            idempotency_keys.c.expires_at > now,
        )
    ).first()
    if row is None:
        return None
    if refusal := check_key(row.fingerprint, key):
        raise refusal
    return row.run_id  # type: ignore[no-any-return]


def key_in_use() -> Conflict:
    """The refusal while the first request with this key is still being answered."""
    return Conflict(
        "A request with this Idempotency-Key is still being answered. Try again in a moment with the same key.",
        code="idempotency-key-in-use",
        headers={"Retry-After": "1"},
    )


def queue_row(tenant_id: str, run_id: str, attempt: int, now: int, *, context: str | None = None) -> outbox.NewRow:
    """The outbox row that hands a run to the workers, with the trace context of a trace that is recorded."""
    return outbox.NewRow(
        tenant_id=tenant_id,
        topic="run",
        message_id=f"{run_id}:{attempt}",
        payload=f'{{"tenant_id":"{tenant_id}","run_id":"{run_id}"{members(context)}}}',
        created_at=now,
    )


class Finish(NamedTuple):
    """How a run ended. `messages` are what its session (or the run that follows on) sees of it, as JSON text."""

    status: RunStatus
    output: Output | None = None
    error: dict[str, Any] | None = None
    last_event: int | None = None
    messages: Sequence[str] = ()


class StepRecord(NamedTuple):
    """What one step of a run did. With `finish` it is the last.

    `used` is metered under (run, step); `reserve` is the worst case of the step that comes next; `context` is that
    of a trace that is recorded.
    """

    run_id: str
    tenant_id: str
    attempt: int
    agent_id: str
    model: str
    step: int
    now: int
    message: str | None = None
    used: Amounts = NOTHING
    reserve: Amounts = NOTHING
    estimated: bool = False
    finish: Finish | None = None
    context: str | None = None


class Recorded(NamedTuple):
    """The step is on disk. `refusal` says why its next step could not be reserved."""

    refusal: QuotaExceeded | None = None


class _Held(NamedTuple):
    """What is to be known of a run before a step of it is recorded."""

    run_id: str
    attempt: int
    status: str
    period: str
    session_id: str | None
    runs_reserved: int
    input_tokens_reserved: int
    output_tokens_reserved: int
    tool_calls_reserved: int


_HOLD = Lookup(
    [runs.c[name] for name in _Held._fields],
    {"tenants": runs.c.tenant_id, "ids": runs.c.run_id},
    order_by=[runs.c.run_id],
    lock=True,
)


class RecordStep:
    """Record steps with their usage. Refuses with Conflict (`run-taken-over`) when another process has the run."""

    def __init__(self, source: str) -> None:
        self._source = source

    def tenant_of(self, item: StepRecord) -> str:
        return item.tenant_id

    def apply(self, connection: Connection, items: Sequence[StepRecord]) -> list[Recorded | KgentsError]:
        rows = _HOLD(
            connection, tenants=sorted({item.tenant_id for item in items}), ids=[item.run_id for item in items]
        )
        held = {row[0]: _Held(*row) for row in rows}
        mine = [
            (row := held.get(item.run_id)) is not None and row.attempt == item.attempt and row.status == "running"
            for item in items
        ]
        postings = [
            self._posting(item, held[item.run_id]) for item, is_mine in zip(items, mine, strict=True) if is_mine
        ]
        refusals = iter(ledger.post(connection, postings, source=self._source))
        results: list[Recorded | KgentsError] = []
        steps: list[Counts] = []
        ends: list[tuple[Counts, End]] = []
        kept: list[tuple[str, str, int, str, int]] = []
        said: list[tuple[str, str | None, str, int, str, int]] = []
        for item, is_mine in zip(items, mine, strict=True):
            if not is_mine:
                results.append(taken_over(item.run_id))
                continue
            refusal = next(refusals)
            results.append(Recorded(refusal))
            reserved = NOTHING if refusal else item.reserve
            counts = Counts(item.tenant_id, item.run_id, month_of(item.now), reserved, item.used)
            finish = item.finish
            if finish is None:
                steps.append(counts)
            else:
                ends.append((counts, End(finish.status, finish.output, finish.error, finish.last_event, item.now)))
                session_id = held[item.run_id].session_id
                for position, message in enumerate(finish.messages):
                    said.append((item.tenant_id, session_id, item.run_id, position, message, item.now))
            if item.message is not None:
                kept.append((item.tenant_id, item.run_id, item.step, item.message, item.now))
        repository.update_runs(connection, steps)
        repository.end_runs(connection, ends)
        repository.insert_steps(connection, kept)
        repository.insert_messages(connection, said)
        return results

    def _posting(self, item: StepRecord, row: _Held) -> Posting:
        return Posting(
            item.tenant_id,
            item.now,
            events=events_of(
                item.used,
                tenant_id=item.tenant_id,
                run_id=item.run_id,
                step=item.step,
                agent_id=item.agent_id,
                model=item.model,
                estimated=item.estimated,
                now=item.now,
            ),
            used=item.used,
            release=Amounts(
                row.runs_reserved, row.input_tokens_reserved, row.output_tokens_reserved, row.tool_calls_reserved
            ),
            release_period=row.period,
            reserve=item.reserve,
            context=item.context,
        )


def taken_over(run_id: str) -> Conflict:
    """The refusal for a process that lost its run to another, because it was taken for dead."""
    return Conflict(
        f"Another process has taken over run {run_id}, because this one did not answer in time. "
        f"Read its result with GET /v1/runs/{run_id}.",
        code="run-taken-over",
    )

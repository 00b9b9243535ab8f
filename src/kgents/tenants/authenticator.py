"""Who calls: from an API key to a Principal, without asking the database each time.

What was read of a key is kept by the key's id. It is trusted only while this process hears of changes: the feed of
changes drops what was changed, and when the feed itself is stuck (for a second) every request asks the database. So a
revoked key stops working within a second in every process, whatever is broken.

Wrong keys are limited by the address that they come from. What that saves is reads of the database: a key that this
process knows is checked all the same, since that costs less than an answer, so that nobody's wrong keys keep the right
one out.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable

from sqlalchemy import Connection

from kgents.clock import SECOND, Clock
from kgents.errors import Unauthenticated
from kgents.store.changes import Change
from kgents.store.engine import Scope, Store
from kgents.tenants import keys, repository
from kgents.tenants.attempts import Attempts
from kgents.tenants.keys import ParsedKey, Peppers
from kgents.tenants.model import Principal
from kgents.tenants.repository import Credential

MAX_KEYS = 200_000
MAX_UNKNOWN = 10_000
UNKNOWN_SECONDS = 5.0  # how long an id that stands for no key is remembered
JOIN_SECONDS = 0.5  # how old a read may be for another request to wait for its answer
LAST_USE_GRAIN = 60 * SECOND

_NEVER = 1 << 62
_NO_DIGEST = bytes(32)


class _Entry:
    """What is kept of a key. `proof` is the hash of the whole token, once its secret was proved."""

    __slots__ = ("credential", "expires_at", "noted_at", "principal", "proof")

    def __init__(self, credential: Credential) -> None:
        self.credential = credential
        self.expires_at = _NEVER if credential.expires_at is None else credential.expires_at
        self.noted_at = credential.last_used_at or 0
        self.proof = b""
        usable = credential.revoked_at is None and credential.tenant_status == "active"
        self.principal = _principal(credential) if usable else None


class _Flight:
    """One read of a key that is under way. What it finds is not kept if `overtaken`: the key may have changed since."""

    __slots__ = ("overtaken", "started", "task")

    def __init__(self, started: float, *, overtaken: bool) -> None:
        self.started = started
        self.overtaken = overtaken
        self.task: asyncio.Task[_Entry | None]


class Authenticator:
    """Checks API keys. `feed_fresh` says whether the feed of changes was read within the last second.

    To be used on the event loop's thread, but for `flush_last_used`.
    """

    def __init__(self, store: Store, clock: Clock, peppers: Peppers, feed_fresh: Callable[[], bool]) -> None:
        self._store = store
        self._clock = clock
        self._peppers = peppers
        self._fresh = feed_fresh
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._by_tenant: dict[str, set[str]] = {}
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._flights: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[_Entry | None]] = set()
        self._used: dict[tuple[str, str], int] = {}
        self._attempts = Attempts(clock)

    @property
    def size(self) -> int:
        """How many keys are remembered, those that do not exist included."""
        return len(self._entries) + len(self._unknown)

    def cached(self, token: str) -> Principal | None:
        """The principal of a token that was checked before and is still good; None says: ask `authenticate`."""
        key_id = token[keys.ID]
        entry = self._entries.get(key_id)
        if entry is None or entry.principal is None or not self._fresh():
            return None
        if not hmac.compare_digest(_proof(token), entry.proof):
            return None
        now = self._clock.now()
        if now >= entry.expires_at:
            return None
        if now - entry.noted_at >= LAST_USE_GRAIN:
            self._note(entry, now)
        self._entries.move_to_end(key_id)
        return entry.principal

    async def authenticate(self, token: str, source: str = "") -> Principal:
        """The principal of a token that came from the address `source`, if that is known. Raises Unauthenticated,
        RateLimited when too many wrong ones came from there, and Unavailable when the database can't be asked.

        A caller without the right secret learns nothing of the key; one with it is told that it expired or was
        revoked, or that its tenant was suspended or deleted.
        """
        parsed = keys.parse(token)
        if parsed is None:
            raise refused()
        entry = self._entries.get(parsed.key_id)
        if entry is not None and not self._proves(parsed, entry):
            # Even a stale entry can say this: a key's secret never changes.
            raise await self._attempts.failed(source) or refused()
        if entry is None or not self._fresh():
            refusal = await self._attempts.refusal(source) if entry is None else None
            entry = await self._find(parsed.key_id) if refusal is None else None
            if not self._proves(parsed, entry):
                raise refusal or await self._attempts.failed(source) or refused()
        assert entry is not None
        return self._admit(token, entry)

    def apply(self, change: Change) -> None:
        """Drop what a change makes stale. Changes that are not of keys and tenants are none of this class's."""
        if change.kind == "api_key":
            self._forget(change.ref)
        elif change.kind == "tenant":
            for key_id in self._by_tenant.pop(change.ref, set()):
                self._forget(key_id)
            for flight in self._flights.values():
                flight.overtaken = True

    def clear(self) -> None:
        """Drop everything: for when the feed of changes has lost its place."""
        self._entries.clear()
        self._by_tenant.clear()
        self._unknown.clear()
        for flight in self._flights.values():
            flight.overtaken = True

    def flush_last_used(self, connection: Connection) -> int:
        """Write the last uses that were collected, of all tenants; at most one a minute for each key. Answers how many.

        May run on another thread. What a failing commit loses is a minute's precision.
        """
        taken: list[tuple[tuple[str, str], int]] = []
        try:
            while self._used:
                taken.append(self._used.popitem())
            repository.touch_keys(connection, [(*key, at) for key, at in taken], LAST_USE_GRAIN)
        except BaseException:
            for key, at in taken:
                self._used.setdefault(key, at)
            raise
        return len(taken)

    def _admit(self, token: str, entry: _Entry) -> Principal:
        """The principal of a key whose secret was proved, unless it has ended."""
        credential = entry.credential
        now = self._clock.now()
        if credential.revoked_at is not None:
            raise refused("This API key was revoked. Use another, or create one.", "api-key-revoked")
        if now >= entry.expires_at:
            raise refused("This API key has expired. Use its successor, or create a new one.", "api-key-expired")
        if entry.principal is None:
            raise refused(
                f"The tenant of this API key is {credential.tenant_status}. Ask the platform's operator.",
                f"tenant-{credential.tenant_status}",
            )
        entry.proof = _proof(token)
        if now - entry.noted_at >= LAST_USE_GRAIN:
            self._note(entry, now)
        return entry.principal

    def _proves(self, parsed: ParsedKey, entry: _Entry | None) -> bool:
        """Whether the secret is the key's. Costs the same for a key that does not exist."""
        version = entry.credential.pepper_version if entry else self._peppers.current
        pepper = self._peppers.get(version)
        known = entry is not None and pepper is not None
        expected = entry.credential.digest if entry is not None else _NO_DIGEST
        same = keys.matches(pepper or self._peppers[self._peppers.current], parsed.secret, expected)
        return same and known

    async def _find(self, key_id: str) -> _Entry | None:
        """What the database says of a key; requests that come at once for one key share one read."""
        now = self._clock.monotonic()
        if self._unknown.get(key_id, 0.0) > now:
            return None
        flight = self._flights.get(key_id)
        if flight is None or flight.overtaken or now - flight.started > JOIN_SECONDS:
            if flight is not None:
                flight.overtaken = True
            flight = _Flight(now, overtaken=not self._fresh())
            flight.task = asyncio.create_task(self._load(key_id, flight), name="api-key-read")
            self._flights[key_id] = flight
            self._tasks.add(flight.task)
            flight.task.add_done_callback(self._landed)
        return await asyncio.shield(flight.task)

    def _landed(self, task: asyncio.Task[_Entry | None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as seen, for when nobody waits any more

    async def _load(self, key_id: str, flight: _Flight) -> _Entry | None:
        try:
            found = await self._store.read(Scope.key(key_id), lambda c: repository.credential(c, key_id))
        finally:
            if self._flights.get(key_id) is flight:
                del self._flights[key_id]
        if found is None:
            self._remember_unknown(key_id)
            return None
        entry = _Entry(found)
        if not flight.overtaken:
            self._remember(entry)
        return entry

    def _remember(self, entry: _Entry) -> None:
        key_id, tenant_id = entry.credential.key_id, entry.credential.tenant_id
        self._entries[key_id] = entry
        self._by_tenant.setdefault(tenant_id, set()).add(key_id)
        if len(self._entries) > MAX_KEYS:
            self._forget(next(iter(self._entries)))

    def _remember_unknown(self, key_id: str) -> None:
        self._unknown[key_id] = self._clock.monotonic() + UNKNOWN_SECONDS
        self._unknown.move_to_end(key_id)
        if len(self._unknown) > MAX_UNKNOWN:
            self._unknown.popitem(last=False)

    def _forget(self, key_id: str) -> None:
        self._unknown.pop(key_id, None)
        entry = self._entries.pop(key_id, None)
        if entry is not None:
            siblings = self._by_tenant.get(entry.credential.tenant_id)
            if siblings is not None:
                siblings.discard(key_id)
                if not siblings:
                    del self._by_tenant[entry.credential.tenant_id]
        flight = self._flights.get(key_id)
        if flight is not None:
            flight.overtaken = True

    def _note(self, entry: _Entry, now: int) -> None:
        entry.noted_at = now
        self._used[entry.credential.tenant_id, entry.credential.key_id] = now


def refused(
    detail: str = "There is no such API key. Check that it is complete (69 characters that begin with kg_).",
    code: str = "unauthenticated",
) -> Unauthenticated:
    """The refusal of a key, with the challenge of RFC 6750."""
    return Unauthenticated(
        detail, code=code, headers={"WWW-Authenticate": 'Bearer realm="kgents", error="invalid_token"'}
    )


def _principal(credential: Credential) -> Principal:
    return Principal(
        credential.tenant_id,
        credential.key_id,
        credential.scopes,
        credential.tenant_status,
        credential.requests_per_minute,
        credential.tokens_per_minute,
        credential.expires_at,
    )


def _proof(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()

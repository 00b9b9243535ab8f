"""Tenants and API keys: decisions. Each change writes its audit entry and its line of the change feed with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from kgents.clock import SECOND, Clock, to_rfc3339
from kgents.errors import Conflict, NotFound
from kgents.ids import new_id
from kgents.store import changes
from kgents.tenants import keys, repository, rules
from kgents.tenants.audit import AuditService
from kgents.tenants.keys import Peppers
from kgents.tenants.model import PLATFORM, Actor, ApiKey, IssuedKey, Page, Tenant, TenantUpdate, Unset


class TenantService:
    """Creates, changes and lists tenants. For platform administrators: run it in a transaction over all tenants."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._audit = AuditService(clock)

    def create(self, connection: Connection, update: TenantUpdate, actor: Actor) -> Tenant:
        """A new tenant with the name, rates and quotas of `update`. Raises Unprocessable, and Conflict when the name
        is taken.
        """
        if update.name is None:
            rules.refuse("name", "a tenant needs a name")
        tenant = self._insert(connection, new_id("ten"), update.name, update, actor)
        if tenant is None:
            raise name_taken(update.name)
        return tenant

    def get(self, connection: Connection, tenant_id: str) -> Tenant:
        """The tenant of this id, deleted or not. Raises NotFound."""
        return self._find(connection, tenant_id)

    def lock(self, connection: Connection, tenant_id: str) -> Tenant:
        """The tenant of this id, held to the end of the transaction. Raises NotFound."""
        return self._find(connection, tenant_id, lock=True)

    def list(self, connection: Connection, *, after: str = "", limit: int = 20) -> Page[Tenant]:
        """Tenants in the order of their ids, deleted ones too; `after` is the last id of the page before."""
        rules.check_limit(limit)
        found = repository.list_tenants(connection, after, limit + 1)
        return Page(found[:limit], len(found) > limit)

    def update(self, connection: Connection, tenant_id: str, update: TenantUpdate, actor: Actor) -> Tenant:
        """The tenant with what `update` changes of it. Suspending or deleting it stops its keys,
        and its queued runs when they are claimed.

        Raises NotFound, Unprocessable, and Conflict when the name is taken, when the tenant was deleted before, or
        for a new name or state of the platform's own tenant.
        """
        before = self._find(connection, tenant_id, lock=True)
        self._check_state(before, update)
        after = _updated(before, update, self._clock.now())
        changed = _difference(before, after)
        if not changed:
            return before
        try:
            with connection.begin_nested():
                repository.update_tenant(connection, after)
        except IntegrityError as error:
            raise name_taken(after.name) from error
        for meter in update.quotas:
            repository.set_quota(connection, tenant_id, meter, after.quotas.get(meter))
        self._audit.record(connection, tenant_id, actor, "tenant.update", "tenant", tenant_id, changed)
        changes.announce(connection, tenant_id, "tenant", tenant_id, after.updated_at)
        return after

    def ensure_platform(self, connection: Connection, actor: Actor) -> Tenant:
        """The reserved tenant of platform administrators, made if it is not there yet."""
        made = self._insert(connection, PLATFORM, "platform", TenantUpdate(), actor)
        return made or self._find(connection, PLATFORM)

    def ensure(self, connection: Connection, name: str, actor: Actor) -> Tenant:
        """The tenant of this name, made if it is not there yet; two processes that ask at once get the same one."""
        found = repository.tenant_by_name(connection, name) or self._insert(
            connection, new_id("ten"), name, TenantUpdate(), actor
        )
        found = found or repository.tenant_by_name(connection, name)
        if found is None:
            raise name_taken(name)
        return found

    def _insert(
        self, connection: Connection, tenant_id: str, name: str, update: TenantUpdate, actor: Actor
    ) -> Tenant | None:
        now = self._clock.now()
        blank = Tenant(tenant_id, name, "active", None, None, {}, now, now)
        tenant = _updated(blank, update, now)
        if not repository.insert_tenant(connection, tenant):
            return None
        for meter, limit in tenant.quotas.items():
            repository.set_quota(connection, tenant_id, meter, limit)
        detail = {"name": tenant.name, **_difference(blank, tenant)}
        self._audit.record(connection, tenant_id, actor, "tenant.create", "tenant", tenant_id, detail)
        changes.announce(connection, tenant_id, "tenant", tenant_id, now)
        return tenant

    def _find(self, connection: Connection, tenant_id: str, *, lock: bool = False) -> Tenant:
        found = repository.tenant_by_id(connection, tenant_id, lock=lock) if rules.is_tenant_id(tenant_id) else None
        if found is None:
            raise no_tenant(tenant_id)
        return found

    def _check_state(self, tenant: Tenant, update: TenantUpdate) -> None:
        if tenant.status == "deleted":
            raise Conflict(
                f"The tenant {tenant.tenant_id} was deleted and can't be changed. Create a new one.",
                code="tenant-deleted",
            )
        if tenant.tenant_id == PLATFORM and (update.name is not None or update.status is not None):
            raise Conflict(
                f"The tenant {PLATFORM} holds the platform's administrators: its name and state are fixed.",
                code="tenant-reserved",
            )


class KeyService:
    """Creates, rotates, revokes and lists a tenant's API keys."""

    def __init__(self, clock: Clock, peppers: Peppers) -> None:
        self._clock = clock
        self._peppers = peppers
        self._audit = AuditService(clock)

    def create(
        self,
        connection: Connection,
        tenant_id: str,
        *,
        name: str,
        scopes: Iterable[str] | None = None,
        role: str | None = None,
        expires_at: int | None = None,
        granting: frozenset[str],
        until: int | None = None,
        actor: Actor,
    ) -> IssuedKey:
        """A new key with the scopes, or those of the role. Its token is in the answer and nowhere else.

        `granting` is what the caller's own key may do, which bounds what the new key may; `until` is when that key
        expires, which the new key does at the latest, and without `expires_at`. Both are in microseconds since the
        epoch. Raises Unprocessable, Forbidden, NotFound for a tenant that is not there and Conflict for one that was
        deleted.
        """
        now = self._clock.now()
        rules.check_name(name)
        wanted = rules.resolve_scopes(scopes, role)
        rules.check_expiry(expires_at, now)
        rules.check_grant(tenant_id, wanted, granting)
        expires_at = rules.bounded_expiry(expires_at, granting, until)
        _check_open(connection, tenant_id)
        issued = self._issue(connection, tenant_id, name, wanted, expires_at, None, now)
        self._changed(
            connection, issued.key, actor, "create", name=name, scopes=sorted(wanted), expires_at=_time(expires_at)
        )
        return issued

    def get(self, connection: Connection, tenant_id: str, key_id: str) -> ApiKey:
        """The tenant's key of this id, whatever its state. Raises NotFound."""
        return self._find(connection, tenant_id, key_id)

    def list(self, connection: Connection, tenant_id: str, *, after: str = "", limit: int = 20) -> Page[ApiKey]:
        """The tenant's keys in the order of creation, ended ones too; `after` is the last id of the page before."""
        rules.check_limit(limit)
        found = repository.list_keys(connection, tenant_id, after, limit + 1)
        return Page(found[:limit], len(found) > limit)

    def rotate(
        self,
        connection: Connection,
        tenant_id: str,
        key_id: str,
        *,
        overlap_seconds: int,
        granting: frozenset[str],
        until: int | None = None,
        actor: Actor,
    ) -> IssuedKey:
        """A new key with the old one's name and scopes; the old one works on for `overlap_seconds`, or until it
        expires if that is sooner. A key that expires is followed by one that lasts as long as it did, but not beyond
        `until`, when the caller's own key expires.

        Raises NotFound, Unprocessable, Forbidden for a key that may do more than the caller's or expires later, and
        Conflict for one that has ended or was rotated before.
        """
        now = self._clock.now()
        rules.check_overlap(overlap_seconds)
        old = self._find(connection, tenant_id, key_id, lock=True)
        self._check_rotatable(connection, old, now)
        rules.check_grant(tenant_id, old.scopes, granting)
        lasts = None if old.expires_at is None else min(now + old.expires_at - old.created_at, rules.END_OF_TIME)
        lasts = rules.bounded_successor(old.expires_at, lasts, granting, until)
        issued = self._issue(connection, tenant_id, old.name, old.scopes, lasts, key_id, now)
        ends = min(old.expires_at or rules.END_OF_TIME, now + overlap_seconds * SECOND)
        repository.end_key(connection, tenant_id, key_id, expires_at=ends, revoked_at=None)
        self._changed(
            connection, old, actor, "rotate", new_key_id=issued.key.key_id, overlap_seconds=overlap_seconds,
            expires_at=_time(ends),
        )  # fmt: skip
        changes.announce(connection, tenant_id, "api_key", issued.key.key_id, now)
        return issued

    def revoke(
        self, connection: Connection, tenant_id: str, key_id: str, *, granting: frozenset[str], actor: Actor
    ) -> ApiKey:
        """Stop a key, within a second in every process. Revoking it again changes nothing.

        Raises NotFound, and Forbidden for a key that may do more than the caller's, which always may stop itself.
        """
        old = self._find(connection, tenant_id, key_id, lock=True)
        if key_id != actor.key_id:
            rules.check_revocable(old, granting)
        if old.revoked_at is not None:
            return old
        revoked = replace(old, revoked_at=self._clock.now())
        repository.end_key(connection, tenant_id, key_id, expires_at=revoked.expires_at, revoked_at=revoked.revoked_at)
        self._changed(connection, revoked, actor, "revoke", name=old.name)
        return revoked

    def _issue(
        self,
        connection: Connection,
        tenant_id: str,
        name: str,
        scopes: frozenset[str],
        expires_at: int | None,
        rotated_from: str | None,
        now: int,
    ) -> IssuedKey:
        new = keys.generate(self._peppers, self._clock)
        key = ApiKey(new.key_id, tenant_id, name, scopes, now, expires_at, None, None, rotated_from)
        repository.insert_key(connection, key, new.digest, new.pepper_version)
        return IssuedKey(key, new.token)

    def _check_rotatable(self, connection: Connection, key: ApiKey, now: int) -> None:
        status = key.status(now)
        if status != "active":
            raise Conflict(
                f"The key {key.key_id} is {status} and can't be rotated. Create a new key with POST /v1/api-keys.",
                code=f"api-key-{status}",
            )
        successor = repository.successor_of(connection, key.tenant_id, key.key_id)
        if successor is not None:
            raise Conflict(
                f"The key {key.key_id} was rotated before. Rotate its successor {successor} instead.",
                code="api-key-rotated",
                successor=successor,
            )

    def _changed(self, connection: Connection, key: ApiKey, actor: Actor, verb: str, **detail: Any) -> None:
        self._audit.record(connection, key.tenant_id, actor, f"api_key.{verb}", "api_key", key.key_id, detail)
        changes.announce(connection, key.tenant_id, "api_key", key.key_id, self._clock.now())

    def _find(self, connection: Connection, tenant_id: str, key_id: str, *, lock: bool = False) -> ApiKey:
        if not rules.is_key_id(key_id):  # not repeated: it may be a whole key, pasted by mistake
            raise NotFound(
                "This is not the id of an API key: an id is the 16 characters between a key's underscores. "
                "List yours with GET /v1/api-keys.",
                code="api-key-not-found",
            )
        found = repository.key_by_id(connection, tenant_id, key_id, lock=lock)
        if found is None:
            raise NotFound(f"There is no API key {key_id}. List yours with GET /v1/api-keys.", code="api-key-not-found")
        return found


def no_tenant(tenant_id: str) -> NotFound:
    """The refusal of a tenant's id that stands for none; what does not look like an id is not repeated."""
    which = tenant_id if rules.is_tenant_id(tenant_id) else "of this id"
    return NotFound(
        f"There is no tenant {which}. List them with GET /v1/tenants or `kgents tenant list`.", code="tenant-not-found"
    )


def name_taken(name: str) -> Conflict:
    """The refusal of a tenant's name that another has, or had."""
    return Conflict(
        f"There is already a tenant named {name!r} (names of deleted tenants stay taken). Choose another name.",
        code="tenant-name-taken",
    )


def _check_open(connection: Connection, tenant_id: str) -> None:
    tenant = repository.tenant_by_id(connection, tenant_id) if rules.is_tenant_id(tenant_id) else None
    if tenant is None:
        raise no_tenant(tenant_id)
    if tenant.status == "deleted":
        raise Conflict(f"The tenant {tenant_id} was deleted and can't have new keys.", code="tenant-deleted")


def _updated(tenant: Tenant, update: TenantUpdate, now: int) -> Tenant:
    """The tenant after a valid update. Raises Unprocessable."""
    quotas = dict(tenant.quotas)
    for meter, limit in update.quotas.items():
        rules.check_quota(meter, limit)
        quotas.pop(meter, None)
        if limit is not None:
            quotas[meter] = limit
    requests, tokens = update.requests_per_minute, update.tokens_per_minute
    return Tenant(
        tenant.tenant_id,
        rules.check_name(tenant.name if update.name is None else update.name),
        tenant.status if update.status is None else rules.check_status(update.status),
        tenant.requests_per_minute
        if isinstance(requests, Unset)
        else rules.check_rate("requests_per_minute", requests),
        tenant.tokens_per_minute if isinstance(tokens, Unset) else rules.check_rate("tokens_per_minute", tokens),
        quotas,
        tenant.created_at,
        now,
    )


def _difference(before: Tenant, after: Tenant) -> dict[str, Any]:
    """What an update changed, as {field: {from, to}}."""
    old, new = asdict(before), asdict(after)
    return {
        name: {"from": old[name], "to": new[name]} for name in old if name != "updated_at" and old[name] != new[name]
    }


def _time(micros: int | None) -> str | None:
    return None if micros is None else to_rfc3339(micros)

"""What tenants, keys and lists may look like: checks that raise Unprocessable with the field and the way to mend it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NoReturn, TypeGuard

from kgents.clock import to_rfc3339
from kgents.errors import Forbidden, Unprocessable
from kgents.ids import is_id
from kgents.store.tables import METERS
from kgents.tenants.model import (
    MAX_NAME,
    MAX_QUOTA,
    MAX_RATE,
    PLATFORM,
    PLATFORM_ADMIN,
    ROLES,
    SCOPES,
    STATUSES,
    ApiKey,
    TenantStatus,
    may_grant,
)

MAX_PAGE = 1000
MAX_OVERLAP = 30 * 86_400  # seconds
END_OF_TIME = 253_402_300_799_000_000  # the last second of the year 9999, which RFC 3339 can still write

_KEY_ID = re.compile(r"[0-9a-hjkmnp-tv-z]{16}", re.ASCII)


def refuse(field: str, message: str) -> NoReturn:
    """Raise Unprocessable about a field."""
    raise Unprocessable(f"{field}: {message}", param=field)


def check_name(name: str) -> str:
    """A name of 1 to 64 printable characters that does not begin or end with a space."""
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable() or name != name.strip():
        refuse("name", f"must be 1 to {MAX_NAME} printable characters, without a space at either end")
    return name


def check_status(status: str) -> TenantStatus:
    """One of the states of a tenant."""
    for known in STATUSES:
        if status == known:
            return known
    refuse("status", f"must be one of {', '.join(STATUSES)}")


def check_rate(field: str, rate: int | None) -> int | None:
    """A rate of at least 1 a minute, or None for the platform's default."""
    if rate is not None and (not _is_int(rate) or not 1 <= rate <= MAX_RATE):
        refuse(field, f"must be a whole number from 1 to {MAX_RATE}, or null for the platform's default")
    return rate


def check_quota(meter: str, limit: int | None) -> None:
    """A quota of a meter that exists: 0 or more a month, or None to remove it."""
    if meter not in METERS:
        refuse(f"quotas.{meter[:MAX_NAME]!r}", f"there is no such meter; the meters are {', '.join(METERS)}")
    if limit is not None and (not _is_int(limit) or not 0 <= limit <= MAX_QUOTA):
        refuse(f"quotas.{meter}", f"must be a whole number from 0 to {MAX_QUOTA}, or null to remove the quota")


def check_expiry(expires_at: int | None, now: int) -> int | None:
    """A moment that is still to come, or None for a key that does not expire."""
    if expires_at is not None and not now < expires_at <= END_OF_TIME:
        refuse("expires_at", f"must be later than now ({to_rfc3339(now)}) and before the year 10000")
    return expires_at


def check_overlap(seconds: int) -> int:
    """How long the old key of a rotation goes on working, in seconds."""
    if not _is_int(seconds) or not 0 <= seconds <= MAX_OVERLAP:
        refuse("overlap_seconds", f"must be a whole number from 0 to {MAX_OVERLAP} (30 days)")
    return seconds


def check_limit(limit: int) -> int:
    """The size of a page."""
    if not _is_int(limit) or not 1 <= limit <= MAX_PAGE:
        refuse("limit", f"must be a whole number from 1 to {MAX_PAGE}")
    return limit


def resolve_scopes(scopes: Iterable[str] | None, role: str | None) -> frozenset[str]:
    """The scopes that were asked for, by name or by role."""
    if (scopes is None) == (role is None):
        refuse("scopes", f"give either scopes or a role ({', '.join(ROLES)})")
    if role is not None:
        if role not in ROLES:
            refuse("role", f"must be one of {', '.join(ROLES)}")
        return ROLES[role]
    wanted = frozenset(scopes or ())
    if not wanted:
        refuse("scopes", f"must name at least one of {', '.join(sorted(SCOPES))}")
    unknown = wanted - SCOPES
    if unknown:
        refuse("scopes", f"there is no scope {min(unknown)[:MAX_NAME]!r}; the scopes are {', '.join(sorted(SCOPES))}")
    return wanted


def check_grant(tenant_id: str, wanted: frozenset[str], granting: frozenset[str]) -> None:
    """Raise Forbidden unless a key with the scopes `granting` may make one with the scopes `wanted` for this tenant."""
    if PLATFORM_ADMIN in wanted and tenant_id != PLATFORM:
        raise Forbidden(
            f"Only keys of the tenant {PLATFORM} can have the scope {PLATFORM_ADMIN}. Leave it out.",
            code="scope-not-grantable",
            scope=PLATFORM_ADMIN,
        )
    beyond = wanted - may_grant(granting)
    if beyond:
        raise Forbidden(
            f"A key can't give another key what it lacks itself: {', '.join(sorted(beyond))}. "
            "Ask for fewer scopes, or use a key that has them.",
            code="scope-not-grantable",
            scope=min(beyond),
        )


def check_revocable(key: ApiKey, granting: frozenset[str]) -> None:
    """Raise Forbidden unless a key with the scopes `granting` may stop this one: it has to have what that one has."""
    beyond = key.scopes - may_grant(granting)
    if beyond:
        raise Forbidden(
            f"A key can't revoke a key that may do more than itself: {', '.join(sorted(beyond))}. "
            "Use a key that has these scopes, or the key itself.",
            code="key-not-revocable",
            scope=min(beyond),
        )


def bounded_expiry(wanted: int | None, granting: frozenset[str], until: int | None) -> int | None:
    """When a new key may expire that a key with the scopes `granting`, which itself expires at `until`, makes: as
    `wanted`, or with the maker where no time was. Platform administrators are not bound. Raises Forbidden for a later
    time.
    """
    if until is None or PLATFORM_ADMIN in granting:
        return wanted
    if wanted is not None and wanted > until:
        raise Forbidden(
            f"A key can't make a key that outlives it: yours expires at {to_rfc3339(until)}. "
            "Ask for an earlier expires_at, or use a key that lasts longer.",
            code="expiry-not-grantable",
        )
    return until if wanted is None else wanted


def bounded_successor(old: int | None, lasts: int | None, granting: frozenset[str], until: int | None) -> int | None:
    """When the successor of a key that expires at `old` may expire: at `lasts`, or with the key that rotates it (see
    `bounded_expiry`) if that is sooner. Raises Forbidden where it would then expire before `old`: who has the old key
    would lose time that they were given.
    """
    if until is None or PLATFORM_ADMIN in granting:
        return lasts
    if old is None or old > until:
        raise Forbidden(
            f"A key can't rotate a key that outlives it: yours expires at {to_rfc3339(until)}, and a key that it makes "
            "expires then at the latest. Use a key that lasts longer.",
            code="expiry-not-grantable",
        )
    return until if lasts is None else min(lasts, until)


def is_key_id(value: str) -> bool:
    """Whether `value` has the form of a key's id."""
    return _KEY_ID.fullmatch(value) is not None


def is_tenant_id(value: str) -> bool:
    """Whether `value` has the form of a tenant's id."""
    return value == PLATFORM or is_id(value, "ten")


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)

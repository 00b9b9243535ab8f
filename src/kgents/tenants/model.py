"""Tenants, API keys, what a key may do, and the audit log's entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, Literal, TypeVar

from kgents.errors import Forbidden

T = TypeVar("T")

PLATFORM = "ten_platform"  # the reserved tenant that platform administrators' keys belong to
PLATFORM_ADMIN = "platform:admin"

SCOPES = frozenset(
    {
        "agents:read",
        "agents:write",
        "sessions:read",
        "sessions:write",
        "runs:read",
        "runs:write",
        "usage:read",
        "keys:read",
        "keys:write",
        "audit:read",
        PLATFORM_ADMIN,
    }
)
OWNER = SCOPES - {PLATFORM_ADMIN}
DEVELOPER = OWNER - {"keys:write", "audit:read"}
VIEWER = frozenset(scope for scope in DEVELOPER if scope.endswith(":read"))
ROLES: Mapping[str, frozenset[str]] = {"owner": OWNER, "developer": DEVELOPER, "viewer": VIEWER}

TenantStatus = Literal["active", "suspended", "deleted"]
STATUSES: tuple[TenantStatus, ...] = ("active", "suspended", "deleted")

MAX_NAME = 64
MAX_RATE = 1_000_000_000  # requests or tokens a minute
MAX_QUOTA = 2**53 - 1  # the largest integer that every JSON reader keeps exactly


class Unset(Enum):
    """Tells "leave as it is" from "remove"."""

    UNSET = "unset"


UNSET = Unset.UNSET


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer. A rate that is None is the platform's default; a quota is how much of a meter a calendar month (UTC)
    allows, and a meter without one is not limited.
    """

    tenant_id: str
    name: str
    status: TenantStatus
    requests_per_minute: int | None
    tokens_per_minute: int | None
    quotas: dict[str, int]
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class TenantUpdate:
    """What to change of a tenant. A rate of None goes back to the default; a quota of None is removed."""

    name: str | None = None
    status: str | None = None
    requests_per_minute: int | Unset | None = UNSET
    tokens_per_minute: int | Unset | None = UNSET
    quotas: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as its owner may see it. `rotated_from` is the id of the key that it replaces."""

    key_id: str
    tenant_id: str
    name: str
    scopes: frozenset[str]
    created_at: int
    expires_at: int | None
    last_used_at: int | None
    revoked_at: int | None
    rotated_from: str | None

    def status(self, now: int) -> Literal["active", "expired", "revoked"]:
        """What the key is good for at the time `now`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and now >= self.expires_at else "active"


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key that was just created, with its token, which can't be shown again."""

    key: ApiKey
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something, from where, and in which request: what the audit log says of it."""

    key_id: str
    source_ip: str
    request_id: str


SYSTEM = Actor("system", "", "")  # kgents itself, and an operator at the machine
STRIPE = Actor("stripe", "", "")  # what became of an invoice at Stripe


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One administrative change. `detail` is JSON and holds no secret."""

    audit_id: str
    tenant_id: str
    actor: str
    action: str
    object_type: str
    object_id: str
    source_ip: str
    request_id: str
    detail: dict[str, Any]
    created_at: int


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: what an API key stands for. A rate that is None is the platform's default; `expires_at` is None for a
    key that does not expire.
    """

    tenant_id: str
    key_id: str
    scopes: frozenset[str]
    tenant_status: TenantStatus
    requests_per_minute: int | None
    tokens_per_minute: int | None
    expires_at: int | None = None

    def require(self, scope: str) -> None:
        """Raise Forbidden, naming the scope, unless the key has it."""
        if scope not in self.scopes:
            raise Forbidden(
                f"The API key {self.key_id} lacks the scope {scope}. Use a key that has it, or ask an owner of the "
                "tenant to create one with POST /v1/api-keys.",
                code="missing-scope",
                scope=scope,
            )


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list, in its order; `has_more` says whether there is anything after it."""

    items: list[T]
    has_more: bool


def may_grant(holder: frozenset[str]) -> frozenset[str]:
    """The scopes that a key with the scopes `holder` may give to another key: a platform administrator all, others
    those that they have.
    """
    return SCOPES if PLATFORM_ADMIN in holder else holder

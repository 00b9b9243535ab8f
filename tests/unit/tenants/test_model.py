"""What keys may do."""

import pytest

from kgents.errors import Forbidden
from kgents.tenants.model import (
    DEVELOPER,
    OWNER,
    PLATFORM_ADMIN,
    SCOPES,
    VIEWER,
    ApiKey,
    IssuedKey,
    Principal,
    may_grant,
)


def principal(*scopes: str) -> Principal:
    return Principal("ten_1", "key1", frozenset(scopes), "active", None, None)


def test_a_scope_that_the_key_has_is_granted():
    principal("agents:read").require("agents:read")


@pytest.mark.parametrize("scope", sorted(SCOPES))
def test_a_scope_that_the_key_lacks_is_named(scope):
    with pytest.raises(Forbidden) as caught:
        principal(*(SCOPES - {scope})).require(scope)

    assert scope in caught.value.detail
    assert caught.value.extra["scope"] == scope


def test_an_owner_is_no_platform_administrator():
    assert SCOPES - {PLATFORM_ADMIN} == OWNER


def test_a_developer_neither_makes_keys_nor_reads_the_audit_log():
    assert {"keys:write", "audit:read"} == OWNER - DEVELOPER


def test_a_viewer_only_reads():
    assert {"agents:read", "sessions:read", "runs:read", "usage:read", "keys:read"} == VIEWER


def test_a_platform_administrator_may_grant_everything():
    assert may_grant(frozenset({PLATFORM_ADMIN})) == SCOPES


def test_other_keys_grant_what_they_have():
    assert may_grant(DEVELOPER) == DEVELOPER


@pytest.mark.parametrize(
    ("expires_at", "revoked_at", "status"),
    [(None, None, "active"), (101, None, "active"), (100, None, "expired"), (101, 50, "revoked"), (99, 50, "revoked")],
)
def test_a_keys_status(expires_at, revoked_at, status):
    key = ApiKey("k", "ten_1", "n", frozenset(), 1, expires_at, None, revoked_at, None)

    assert key.status(100) == status


def test_an_issued_keys_token_is_not_in_its_repr():
    key = ApiKey("k", "ten_1", "n", frozenset(), 1, None, None, None, None)

    assert "kg_canary" not in repr(IssuedKey(key, "kg_canary"))

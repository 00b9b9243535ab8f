"""What tenants, keys and lists may look like."""

import pytest

from kgents.errors import Forbidden, Unprocessable
from kgents.tenants import rules
from kgents.tenants.model import DEVELOPER, OWNER, PLATFORM, PLATFORM_ADMIN, SCOPES, VIEWER


@pytest.mark.parametrize("name", ["a", "Acme GmbH", "Köln", "x" * 64, "日本"])
def test_good_names(name):
    assert rules.check_name(name) == name


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "a\0b", "a\nb", " a", "a ", "\x7f", "\ud800", "a\u202eb"])
def test_bad_names(name):
    with pytest.raises(Unprocessable, match="name"):
        rules.check_name(name)


@pytest.mark.parametrize("limit", [0, 1, 2**53 - 1, None])
def test_good_quotas(limit):
    rules.check_quota("runs", limit)


@pytest.mark.parametrize(
    ("meter", "limit"), [("runs", -1), ("runs", 2**53), ("runs", True), ("runs", 1.5), ("runs", "1"), ("walks", 1)]
)
def test_bad_quotas(meter, limit):
    with pytest.raises(Unprocessable, match="quotas"):
        rules.check_quota(meter, limit)


@pytest.mark.parametrize("rate", [0, -1, 1_000_000_001, True, 2.0])
def test_bad_rates(rate):
    with pytest.raises(Unprocessable, match="requests_per_minute"):
        rules.check_rate("requests_per_minute", rate)


@pytest.mark.parametrize("rate", [1, 1_000_000_000, None])
def test_good_rates(rate):
    assert rules.check_rate("requests_per_minute", rate) == rate


@pytest.mark.parametrize("expires_at", [0, -1, 1000, rules.END_OF_TIME + 1])
def test_an_expiry_must_be_to_come(expires_at):
    with pytest.raises(Unprocessable, match="expires_at"):
        rules.check_expiry(expires_at, 1000)


@pytest.mark.parametrize("limit", [0, -1, 1001, True])
def test_bad_page_sizes(limit):
    with pytest.raises(Unprocessable, match="limit"):
        rules.check_limit(limit)


@pytest.mark.parametrize("seconds", [-1, rules.MAX_OVERLAP + 1, 1.5])
def test_bad_overlaps(seconds):
    with pytest.raises(Unprocessable, match="overlap_seconds"):
        rules.check_overlap(seconds)


def test_a_role_stands_for_its_scopes():
    assert rules.resolve_scopes(None, "viewer") == VIEWER


@pytest.mark.parametrize(
    ("scopes", "role"), [(None, None), (["runs:read"], "viewer"), ([], None), (["runs:fly"], None), (None, "king")]
)
def test_bad_scopes(scopes, role):
    with pytest.raises(Unprocessable):
        rules.resolve_scopes(scopes, role)


def test_a_key_cannot_grant_what_it_lacks():
    with pytest.raises(Forbidden, match="keys:write"):
        rules.check_grant("ten_1", OWNER, DEVELOPER | {"audit:read"})


@pytest.mark.parametrize("granting", [SCOPES, frozenset({PLATFORM_ADMIN})])
def test_the_platforms_scope_stays_with_the_platform(granting):
    with pytest.raises(Forbidden, match=PLATFORM_ADMIN):
        rules.check_grant("ten_1", frozenset({PLATFORM_ADMIN}), granting)


def test_a_platform_administrator_may_make_another():
    rules.check_grant(PLATFORM, SCOPES, frozenset({PLATFORM_ADMIN}))


def test_an_owner_of_the_platforms_tenant_cannot_make_an_administrator():
    with pytest.raises(Forbidden):
        rules.check_grant(PLATFORM, frozenset({PLATFORM_ADMIN}), OWNER)

"""API2:2023. Keys: what is none opens nothing, guessing is limited, and limits lock nobody out.

That a revoked key stops within a second, and what each scope opens, is in tests/contract/api/test_api_keys.py; that
every check of a key does the same work, in tests/unit/tenants/test_authenticator.py.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from kgents.tenants import keys
from kgents.tenants.attempts import WRONG_A_MINUTE
from tests.security.operations import operations_of
from tests.support.refusals import refused
from tests.support.tenants import Tenant
from tests.support.up import Up

PEPPERS = keys.parse_peppers("22" * 32)
PATH = "/v1/agents"


def invented() -> str:
    """A key of the right form that nobody was given."""
    return keys.generate(PEPPERS).token


def guessed(token: str) -> str:
    """A key of the right form with the id of another, and a secret that is guessed."""
    body = token[:20] + invented()[20:63]
    return body + keys._checksum(body)


def bearer(token: str, source: str = "") -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} | ({"X-Forwarded-For": source} if source else {})


def test_every_operation_needs_a_key(anyone: httpx2.Client, document: dict[str, Any]) -> None:
    for operation in operations_of(document):
        for headers in ({}, bearer(invented())):
            answer = anyone.request(operation.method, operation.some_path, headers=headers)
            refused(answer, 401)
            assert answer.headers["www-authenticate"].startswith("Bearer"), operation.id


def test_a_key_is_taken_in_one_place_only(attacker: Tenant, anyone: httpx2.Client) -> None:
    key = attacker.key
    basic = base64.b64encode(f"{key}:".encode()).decode()
    tries: list[dict[str, Any]] = [
        *({"params": {name: key}} for name in ("api_key", "key", "access_token", "token", "authorization")),
        *({"headers": {name: key}} for name in ("X-Api-Key", "Api-Key", "X-Auth-Token", "Proxy-Authorization")),
        *({"headers": {"Authorization": value}} for value in (key, f"Basic {basic}", f"Token {key}", f"ApiKey {key}")),
        {"headers": {"Cookie": f"authorization=Bearer {key}; api_key={key}"}},
    ]
    for each in tries:
        refused(anyone.get(PATH, **each), 401)


@pytest.mark.parametrize(
    "broken",
    [
        lambda key: key[:-1],
        lambda key: key + "A",
        lambda key: key.upper(),
        lambda key: key.replace("kg_", "KG_"),
        lambda key: key[:20] + "0" * 49,
        lambda key: key[:19] + "_" + "' OR '1'='1".ljust(49, "x"),
        lambda key: key + "\t" + key,
        lambda key: key + "," + key,
    ],
)
def test_a_key_that_is_nearly_one_is_none(attacker: Tenant, anyone: httpx2.Client, broken: Any) -> None:
    refused(anyone.get(PATH, headers=bearer(broken(attacker.key))), 401)


def test_who_guesses_a_secret_does_not_learn_that_the_key_exists(tenant: Tenant, anyone: httpx2.Client) -> None:
    revoked = tenant.issue(role="viewer")
    tenant.http.delete(f"/v1/api-keys/{revoked['id']}").raise_for_status()
    tokens = (invented(), guessed(tenant.key), guessed(revoked["token"]), "kg_x")
    answers = [anyone.get(PATH, headers=bearer(token)) for token in tokens]
    different = {(each.status_code, each.json()["detail"], each.headers["www-authenticate"]) for each in answers}
    assert len(different) == 1


def flooded(anyone: httpx2.Client, source: str, token: Callable[[int], str]) -> list[httpx2.Response]:
    """The answers to a flood of keys from an address; both are numbered."""
    return [
        anyone.get(PATH, headers=bearer(token(number), source.format(number))) for number in range(WRONG_A_MINUTE + 200)
    ]


def statuses(answers: list[httpx2.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


def test_wrong_keys_are_limited_by_the_address_that_they_come_from(up: Up, anyone: httpx2.Client) -> None:
    answers = flooded(anyone, "198.51.100.1", lambda _: invented())
    assert set(statuses(answers)) == {401, 429}
    assert statuses(answers)[401] >= WRONG_A_MINUTE
    limited = next(answer for answer in answers if answer.status_code == 429)
    refused(limited, 429, "wrong-keys")
    assert int(limited.headers["retry-after"]) >= 1
    assert anyone.get(PATH, headers=bearer(invented(), "198.51.100.2")).status_code == 401, "another is not limited"
    assert any("many wrong API keys" in line and "198.51.100.1" in line for line in up.logs_until_now().splitlines())
    assert any('kgents_rate_limited_total{kind="wrong_keys"}' in page for page in up.metrics())


def test_who_guesses_a_tenants_key_does_not_lock_the_tenant_out(tenant: Tenant, anyone: httpx2.Client) -> None:
    """Neither by its id, which is no secret, nor from its own address."""
    every_tenth = flooded(anyone, "198.51.100.3", lambda number: guessed(tenant.key) if number % 10 else tenant.key)
    assert statuses(every_tenth[1::10])[429] > 0
    assert set(statuses(every_tenth[::10])) == {200}
    assert anyone.get(PATH, headers=bearer(tenant.key, "198.51.100.4")).status_code == 200


def test_a_limited_guess_is_answered_the_same_whether_the_key_exists(tenant: Tenant, anyone: httpx2.Client) -> None:
    answers = flooded(anyone, "198.51.100.5", lambda number: guessed(tenant.key) if number % 2 else invented())
    existing, none = ({told(answer) for answer in answers[start::2] if answer.status_code == 429} for start in (1, 0))
    assert existing == none
    assert len(none) == 1


def told(answer: httpx2.Response) -> str:
    return refused(answer, 429, "wrong-keys").rpartition(" again in ")[0]


@pytest.mark.parametrize("forged", ["203.0.113.{}, 198.51.100.6", "x{}, 198.51.100.7", "{}.0.0.1,,198.51.100.8"])
def test_an_address_that_the_client_writes_itself_does_not_count(anyone: httpx2.Client, forged: str) -> None:
    """What a gateway adds stands behind what the client wrote."""
    assert statuses(flooded(anyone, forged, lambda _: invented()))[429] > 0

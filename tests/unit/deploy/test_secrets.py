"""Secrets are judged without being told."""

from __future__ import annotations

import pytest

from kgents.deploy.secrets import check, read, require, wanted
from kgents.errors import Unprocessable
from kgents.tenants.keys import parse_peppers

CANARY = "c4n4ryc4n4ryc4n4ryc4n4ry"
WANTS = wanted(parse_peppers)
GOOD = {
    "kgents-api-secrets": {
        "KGENTS_DATABASE_URL": f"postgresql://kgents_api:{CANARY}@host/kgents",
        "KGENTS_PEPPER": "ab" * 32,
        "KGENTS_METER_TOKEN": CANARY,
    },
    "kgents-nats-secrets": dict.fromkeys(("api", "worker", "backup", "system", "cluster"), CANARY),
    "kgents-migrate-secrets": {"KGENTS_DATABASE_OWNER_URL": f"postgresql://kgents_owner:{CANARY}@host/kgents"},
}


def changed(secret: str, key: str, value: str) -> dict[str, dict[str, str]]:
    return {**GOOD, secret: {**GOOD[secret], key: value}}


def test_complete_secrets_are_ok_and_what_is_optional_may_be_absent() -> None:
    verdicts = check(GOOD, WANTS)

    assert {each.verdict for each in verdicts} == {"ok", "not set"}
    require(verdicts)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("KGENTS_STRIPE_API_KEY", f"sk_test_{CANARY}"),
        ("KGENTS_STRIPE_API_KEY", f"rk_live_{CANARY}"),
        ("KGENTS_STRIPE_WEBHOOK_SECRET", f"whsec_{CANARY}"),
    ],
)
def test_secrets_of_stripes_are_ok(key: str, value: str) -> None:
    verdicts = check(changed("kgents-api-secrets", key, value), WANTS)

    assert [each.verdict for each in verdicts if each.key == key] == ["ok"]


@pytest.mark.parametrize("data", [5, {"KGENTS_PEPPER": 5}, {"KGENTS_PEPPER": "x"}])
def test_what_is_no_secret_is_said_to_be_none(data: object) -> None:
    with pytest.raises(Unprocessable, match="no Secret"):
        read(lambda _: {"data": data}, WANTS)


@pytest.mark.parametrize(("token", "verdict"), [(CANARY, "ok"), ("another", "malformed")])
def test_the_meters_token_is_that_of_those_who_ask_it(token: str, verdict: str) -> None:
    verdicts = check({**GOOD, "kgents-meter-secrets": {"KGENTS_METER_TOKEN": token}}, WANTS)

    assert [each.verdict for each in verdicts if each.secret == "kgents-meter-secrets"] == [verdict]


@pytest.mark.parametrize("want", [want for want in WANTS if not want.optional], ids=lambda want: want.key)
def test_a_missing_value_is_told_of(want) -> None:
    verdicts = check(changed(want.secret, want.key, ""), WANTS)

    assert [(each.secret, each.key) for each in verdicts if each.verdict == "missing"] == [(want.secret, want.key)]
    with pytest.raises(Unprocessable, match=rf"{want.key} \(missing\)"):
        require(verdicts)


def test_a_missing_secret_is_told_of_with_each_value() -> None:
    verdicts = check({**GOOD, "kgents-migrate-secrets": None}, WANTS)
    assert [each.detail for each in verdicts if each.verdict == "missing"] == ["there is no such secret"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("KGENTS_DATABASE_URL", f"mysql://a:{CANARY}@host/kgents"),
        ("KGENTS_DATABASE_URL", f"postgresql://{CANARY}"),
        ("KGENTS_DATABASE_URL", f"postgresql://[{CANARY}"),
        ("KGENTS_DATABASE_URL", f"postgresql://u:{CANARY}\u2100@host/kgents"),
        ("KGENTS_DATABASE_URL", f"postgresql://u:a[{CANARY}]b@host/kgents"),
        ("KGENTS_DATABASE_URL", f"postgresql://u:{CANARY}@host:abc/kgents"),
        ("KGENTS_PEPPER", "c4n4ry"),
        ("KGENTS_PROVIDERS", f'{{"openai": "{CANARY}"'),
        ("KGENTS_PROVIDERS", f'["{CANARY}"]'),
        ("KGENTS_STRIPE_API_KEY", f"pk_live_{CANARY}"),
        ("KGENTS_STRIPE_WEBHOOK_SECRET", f"we_{CANARY}"),
    ],
)
def test_a_malformed_value_is_told_of_and_not_told(key: str, value: str) -> None:
    verdicts = check(changed("kgents-api-secrets", key, value), WANTS)

    assert [each.key for each in verdicts if each.verdict == "malformed"] == [key]
    assert "c4n4ry" not in str(verdicts)
    with pytest.raises(Unprocessable) as raised:
        require(verdicts)
    assert "c4n4ry" not in str(raised.value)

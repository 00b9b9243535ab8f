"""What the secrets of an installation have to hold, and whether they do; never what they hold."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from kgents.errors import Unprocessable

_PLAIN = re.compile(r"[A-Za-z0-9._~-]+")
_STRIPE = re.compile(r"[rs]k_(test|live)_[A-Za-z0-9_]{16,}")  # https://docs.stripe.com/keys


class Verdict(NamedTuple):
    """One value of a secret: `ok`, `missing` or `malformed`, and for what it is, or what is wrong with it."""

    secret: str
    key: str
    verdict: str
    detail: str


class Wanted(NamedTuple):
    """A value that a secret has to hold (or may)."""

    secret: str
    key: str
    purpose: str
    check: Callable[[str], None]
    optional: bool = False
    same_as: tuple[str, str] | None = None
    """The secret and the key that hold the same value."""


def _any(_value: str) -> None:
    pass


def _postgresql(value: str) -> None:
    try:
        parts = urlsplit(value)
        named = parts.hostname and parts.path[1:] and (parts.port is None or parts.port > 0)
    except ValueError:  # what it says may be of the password
        named = False
    if not named or parts.scheme.partition("+")[0] not in ("postgresql", "postgres"):
        raise ValueError("it is not postgresql://USER:PASSWORD@HOST:PORT/DATABASE")


def _long(value: str) -> None:
    if len(value) < 16:
        raise ValueError(f"it has {len(value)} characters, and is to have 16 at least")


def _password(value: str) -> None:
    """One that can stand in nats-server's configuration and in a URL as it is."""
    _long(value)
    if not _PLAIN.fullmatch(value):
        raise ValueError("it has other characters than letters, digits and . _ ~ -")


def _providers(value: str) -> None:
    try:
        providers = json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: line {error.lineno}, column {error.colno}") from None
    if not isinstance(providers, dict) or not all(isinstance(each, dict) for each in providers.values()):
        raise ValueError('it is not an object of objects, such as {"openai": {"api_key": "..."}}')


def _stripe(value: str) -> None:
    if not _STRIPE.fullmatch(value):
        raise ValueError("it is neither a secret key of Stripe's (sk_live_...) nor a restricted one (rk_live_...)")


def _webhook(value: str) -> None:
    if not value.startswith("whsec_"):
        raise ValueError("it is no signing secret of a webhook endpoint (whsec_...)")


def wanted(check_pepper: Callable[[str], object]) -> list[Wanted]:
    """What is to be there. `check_pepper` raises ValueError for a pepper that can't be used."""

    def pepper(value: str) -> None:
        check_pepper(value)

    api = "kgents-api-secrets"
    return [
        Wanted(api, "KGENTS_DATABASE_URL", "the database, as the application's role", _postgresql),
        Wanted(api, "KGENTS_PEPPER", "the hashes of API keys", pepper),
        Wanted(api, "KGENTS_METER_TOKEN", "OpenMeter, or the meter that comes with kgents", _any),
        Wanted(api, "KGENTS_PROVIDERS", "model providers, as JSON", _providers, optional=True),
        Wanted(api, "KGENTS_STRIPE_API_KEY", "Stripe, which collects invoices", _stripe, optional=True),
        Wanted(api, "KGENTS_STRIPE_WEBHOOK_SECRET", "what Stripe tells by webhook", _webhook, optional=True),
        Wanted(api, "KGENTS_REDIS_URL", "rate limits of all replicas together", _any, optional=True),
        *(
            Wanted("kgents-nats-secrets", user, f"the event bus, as {user}", _password)
            for user in ("api", "worker", "backup", "system", "cluster")
        ),
        *(
            Wanted("kgents-postgres-secrets", role, f"the database that comes with kgents, as {role}", _password, True)
            for role in ("owner", "app")
        ),
        Wanted(
            "kgents-meter-secrets",
            "KGENTS_METER_TOKEN",
            "the meter that comes with kgents, if it is there",
            _any,
            optional=True,
            same_as=(api, "KGENTS_METER_TOKEN"),
        ),
        Wanted("kgents-grafana-secrets", "password", "Grafana's administrator, if there is one", _long, optional=True),
        Wanted("kgents-migrate-secrets", "KGENTS_DATABASE_OWNER_URL", "the database, as its owner", _postgresql),
    ]


def read(get: Callable[[str], Mapping[str, Any] | None], wants: list[Wanted]) -> dict[str, dict[str, str] | None]:
    """The secrets that hold what is wanted, decoded, as `check` takes them. `get` answers a Secret by its name."""
    secrets = {want.secret: get(want.secret) for want in wants}
    return {name: None if secret is None else _decoded(secret.get("data") or {}) for name, secret in secrets.items()}


def _decoded(data: Any) -> dict[str, str]:
    try:
        return {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}
    except (AttributeError, TypeError, ValueError):  # no cluster has such a Secret, but what says it is one may
        raise Unprocessable("What kubectl printed is no Secret.", code="cluster") from None


def check(found: Mapping[str, Mapping[str, str] | None], wants: list[Wanted]) -> list[Verdict]:
    """A verdict on each value. `found` has the secrets by name, and None for one that is not there."""
    verdicts = []
    for want in wants:
        values = found.get(want.secret)
        value = (values or {}).get(want.key, "").strip()
        if values is None and not want.optional:
            verdicts.append(Verdict(want.secret, want.key, "missing", "there is no such secret"))
        elif not value:
            verdict = "not set" if want.optional else "missing"
            verdicts.append(Verdict(want.secret, want.key, verdict, want.purpose))
        elif want.same_as and value != ((found.get(want.same_as[0]) or {}).get(want.same_as[1]) or value).strip():
            secret, key = want.same_as
            verdicts.append(Verdict(want.secret, want.key, "malformed", f"it is not the {key} of {secret}"))
        else:
            verdicts.append(_verdict(want, value))
    return verdicts


def _verdict(want: Wanted, value: str) -> Verdict:
    try:
        want.check(value)
    except ValueError as error:
        return Verdict(want.secret, want.key, "malformed", str(error))
    return Verdict(want.secret, want.key, "ok", want.purpose)


def require(verdicts: list[Verdict]) -> None:
    """Raise Unprocessable where a value is missing or malformed."""
    wrong = [f"{each.key} ({each.verdict})" for each in verdicts if each.verdict in ("missing", "malformed")]
    if wrong:
        raise Unprocessable(f"The secrets are not complete: {', '.join(wrong)}.", code="secrets")

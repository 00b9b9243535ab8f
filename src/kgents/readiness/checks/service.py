"""What the installation answers, asked as its clients ask."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

import httpx2

from kgents.clock import SECOND
from kgents.deploy import health
from kgents.errors import Unavailable
from kgents.readiness.model import Broken, Found, NotShown
from kgents.readiness.target import Target, answer, client

COUNTED_WITHIN = 30.0  # seconds from an answer until the meter has counted it
LOOK = 0.5
AGAIN = 5.0  # seconds in which a second count of an event would come
CERTIFICATE_LEFT = 14 * 86_400  # seconds; cert-manager renews a certificate of 90 days when 30 are left
PLAIN = 80  # the port at which a gateway answers plain HTTP
MUST = ("sql", "nats", "meter")


def connected(target: Target) -> Found:
    """The health page says that SQL, NATS and the meter answered just now."""
    with target.http() as http:
        seen = answer_health(http)
    return _judged(seen, "The health page")


def answer_health(http: httpx2.Client) -> dict[str, Any]:
    """The health page, also where it comes with 503. Raises NotShown where there is none."""
    try:
        found = http.get(health.PATH)
        document: dict[str, Any] = found.json()
        document["components"], document["status"]
    except httpx2.HTTPError as error:
        raise NotShown(f"{health.PATH} can't be reached: {error or type(error).__name__}.") from None
    except (ValueError, KeyError, TypeError):
        raise NotShown(f"What answers {health.PATH} is not kgents.") from None
    return document


def _judged(seen: dict[str, Any], who: str) -> Found:
    statuses = {name: str(each["status"]) for name, each in seen["components"].items()}
    wrong = [f"{name} is {statuses.get(name, 'not there')}" for name in MUST if statuses.get(name) != "connected"]
    wrong += [f"{name} is {each}" for name, each in statuses.items() if name not in MUST and each.startswith("d")]
    if wrong or seen["status"] != "ok":
        raise Broken(f"{who} says {seen['status']}: {', '.join(wrong) or 'nothing more'}.", seen)
    return Found(", ".join(f"{name} {each}" for name, each in statuses.items()), seen)


def through_gateway(target: Target) -> Found:
    """The same through the gateway, by its host name and with its certificate."""
    entrance = target.entrance
    try:
        text = health.get(entrance, health.PATH)
        seen = text.json()
        found = _judged(seen, str(entrance))
    except Unavailable as error:
        raise Broken(error.detail) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Broken(f"What answers {health.PATH} through {entrance} is not kgents.") from None
    return Found(f"Through {entrance.name} ({entrance}): {found.detail}", {"through": str(entrance), **seen})


def through_kong(target: Target) -> Found:
    """An answer says that Kong passed it on (its headers X-Kong-... or Via)."""
    try:
        headers = health.get(target.entrance, "/health").headers
    except Unavailable as error:
        raise Broken(error.detail) from None
    said = {name: value for name, value in headers.items() if "kong" in f"{name} {value}".lower()}
    if not said:
        raise NotShown(f"No header of an answer through {target.entrance} says that Kong passed it on.")
    return Found(f"Kong says so: {', '.join(said)}.", {"headers": said})


def event_is_metered(target: Target) -> Found:
    """A run is made, and the meter counts it once, with the tokens that the run was answered with."""
    tenant = target.tenant("metered")  # of its own: another criterion's runs may be on their way to the meter
    before = _metered(target, tenant.id)
    with target.http(tenant.key) as http:
        body = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]}
        used = answer(http, "POST", "/v1/chat/completions", body)["usage"]
    wanted = {"runs": 1, "input_tokens": used["prompt_tokens"], "output_tokens": used["completion_tokens"]}
    deadline = time.monotonic() + COUNTED_WITHIN
    looked_again = False
    while True:
        now = _metered(target, tenant.id)
        seen = {name: now[name] - before[name] for name in wanted}
        facts = {"tenant": tenant.id, "answered": wanted, "metered": seen}
        if seen == wanted and not looked_again:
            looked_again = True
            time.sleep(AGAIN)  # a duplicate may be on its way
            continue
        if seen == wanted:
            return Found(
                f"The meter counted {seen['input_tokens']} and {seen['output_tokens']} tokens of one run.", facts
            )
        if any(seen[name] > wanted[name] for name in wanted) or time.monotonic() > deadline:
            raise Broken(
                f"After {COUNTED_WITHIN:.0f} s the meter has {seen}, and the run was answered with {wanted}.", facts
            )
        time.sleep(LOOK)


def _metered(target: Target, tenant: str) -> dict[str, int]:
    totals = {}
    with client(target.meter_base, target.meter_token) as meter:
        for name in ("runs", "input_tokens", "output_tokens"):
            rows = answer(meter, "GET", f"/api/v1/meters/{name}/query", params={"subject": tenant})
            totals[name] = sum(int(row["value"]) for row in rows.get("data", ()))
    return totals


def keys_are_asked_for(target: Target) -> Found:
    """Each operation that the API's document protects answers 401 without a key, and with one that is wrong."""
    with target.http() as http, target.http("kg_0000000000000000_" + 40 * "0") as stranger:
        document = answer(http, "GET", "/openapi.json")
        protected = list(_protected(document))
        if not protected:
            raise Broken("The API's document protects no operation.")
        seen = {}
        for method, path in protected:
            for who, each in (("nobody", http), ("a wrong key", stranger)):
                seen[f"{method} {path}, {who}"] = _status(each, method, path)
    if wrong := {name: status for name, status in seen.items() if status != 401}:
        first = next(iter(wrong))
        raise Broken(f"{len(wrong)} of {len(seen)} are not refused, such as {first}: {wrong[first]}.", wrong)
    return Found(f"{len(protected)} operations, 401 for nobody and for a wrong key.", {"operations": len(protected)})


def _protected(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method in ("get", "post", "put", "patch", "delete") and operation.get(
                "security", document.get("security")
            ):
                yield method.upper(), path


def _status(http: httpx2.Client, method: str, path: str) -> int:
    filled = "/".join("none" if part.startswith("{") else part for part in path.split("/"))
    try:
        return http.request(method, filled, json={} if method != "GET" else None).status_code
    except httpx2.HTTPError as error:
        raise NotShown(f"{method} {filled} can't be asked: {error or type(error).__name__}.") from None


def tenants_are_apart(target: Target) -> Found:
    """What one tenant has is not there (404) for another, with every route that reads it by its id."""
    mine, other = target.tenant(), target.tenant("other")
    with target.http(mine.key) as http, target.http(other.key) as stranger:
        session = answer(http, "POST", "/v1/sessions", {"agent": "echo"})["id"]
        run = answer(http, "POST", f"/v1/sessions/{session}/runs", {"input": "mine"})["id"]
        agent = answer(http, "GET", "/v1/agents")["data"][0]["id"]
        key = answer(http, "GET", "/v1/api-keys")["data"][0]["id"]
        paths = [f"/v1/sessions/{session}", f"/v1/sessions/{session}/messages", f"/v1/runs/{run}"]
        paths += [f"/v1/runs/{run}/events", f"/v1/agents/{agent}", f"/v1/api-keys/{key}"]
        own = {path: _status(http, "GET", path) for path in paths}
        seen = {path: _status(stranger, "GET", path) for path in paths if own[path] == 200}
    if not seen:
        raise NotShown("Nothing could be read by its own tenant, so that nothing is shown.")
    kinds = [path.split("/")[2] for path in seen]
    if wrong := {path: status for path, status in seen.items() if status != 404}:
        raise Broken(f"Another tenant is answered {wrong}.", wrong)
    return Found(f"404 for {', '.join(sorted(set(kinds)))} of another tenant.", {"asked": len(seen), "answers": 404})


def certificate(target: Target) -> Found:
    """The gateway's certificate is of a known authority, for its host name, for two weeks more; HTTP leads to HTTPS."""
    entrance = target.entrance
    if not entrance.tls:
        raise Broken(f"{entrance} has no TLS.")
    host = entrance.host or entrance.address
    try:
        with (
            socket.create_connection((entrance.address, entrance.port), timeout=10) as raw,
            ssl.create_default_context().wrap_socket(raw, server_hostname=host) as secured,
        ):
            ends = ssl.cert_time_to_seconds(str((secured.getpeercert() or {})["notAfter"]))
            version = secured.version()
    except ssl.SSLError as error:
        raise Broken(f"The certificate of {host} is not accepted: {error.reason or error}.") from None
    except OSError as error:
        raise NotShown(f"{entrance} can't be reached: {error}.") from None
    left = ends - target.clock.now() / SECOND
    seen = {"host": host, "ends": ends, "tls": version}
    if left < CERTIFICATE_LEFT:
        raise Broken(f"The certificate of {host} ends in {left / 86_400:.0f} days.", seen)
    try:
        plain = health.get(entrance, "/health", tls=False, port=PLAIN)
    except Unavailable:
        return Found(f"{version}, {left / 86_400:.0f} days left; nothing answers plain HTTP.", seen)
    if not (plain.is_redirect and plain.headers.get("location", "").startswith("https://")):
        raise Broken(f"Plain HTTP is answered {plain.status_code}, not led to HTTPS.", seen)
    return Found(f"{version}, {left / 86_400:.0f} days left; HTTP leads to HTTPS.", seen)

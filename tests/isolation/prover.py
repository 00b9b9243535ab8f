"""Tries every operation of an OpenAPI document on every object of other tenants, wherever an operation takes a name.

Every input that may name an object is given every reference to every object of the victims, while the rest of the
request is valid and the attacker's own. What must hold of each answer:

- no byte of it is a victim's id, name or text, other than what was asked for;
- it is the answer to a reference that nobody has (status and problem, and what is read), so that not even existence is
  told;
- where the reference stands in the path, it is 404, or 403 where the key's scopes do not reach the operation.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any
from uuid import uuid4

import httpx2

from tests.isolation import catalog
from tests.isolation.world import Tenant
from tests.support.waiting import wait_until

BUSY_TRIES = 5
STREAM_SECONDS = 2.0
VOLATILE = ("to", "last_used_at")  # differ between two answers to the same request: now, and when a key was last used
METHODS = ("get", "post", "put", "patch", "delete", "head", "options", "trace")


class NotCovered(AssertionError):
    """The document has something that the prover does not know; the text says what to add where."""


@dataclass(frozen=True, slots=True)
class Slot:
    """An input of an operation that may name an object."""

    where: str  # path, query, header, body
    name: str
    own: str  # the kind of one's own object that is valid here


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation with its inputs; `bodies` are valid ones, or one None."""

    method: str
    path: str
    slots: tuple[Slot, ...]
    plain_paths: tuple[str, ...]
    bodies: tuple[dict[str, Any] | None, ...]

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"

    @property
    def is_platforms(self) -> bool:
        """Whether it is for the platform's administrators only."""
        return self.path.startswith(catalog.PLATFORM_PATHS)


@dataclass(slots=True)
class Proof:
    """What the prover found; `tries` are the requests that it made, `tried` which role gave an operation which ref."""

    operations: int = 0
    tries: int = 0
    tried: set[tuple[str, str, str]] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)


def operations_of(document: Mapping[str, Any]) -> list[Operation]:
    """The operations of an OpenAPI document. Raises NotCovered for an input that the catalog does not know."""
    found = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method not in METHODS:
                raise NotCovered(f"{path} has {method!r}, which is no method: teach operations_of in prover.py")
            found.append(_operation(document, method, path, operation))
    return found


_PARAMETERS = {
    "path": ("PATHS", catalog.PATHS, "PLAIN_PATHS", catalog.PLAIN_PATHS),
    "query": ("QUERIES", catalog.QUERIES, "PLAIN_QUERIES", catalog.PLAIN_QUERIES),
    "header": ("HEADERS", catalog.HEADERS, "PLAIN_HEADERS", catalog.PLAIN_HEADERS),
}


def _operation(document: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any]) -> Operation:
    title = f"{method.upper()} {path}"
    slots, plain = [], []
    for parameter in operation.get("parameters", []):
        name, where = parameter["name"], parameter["in"]
        if where not in _PARAMETERS:
            raise NotCovered(f"{title} takes {name!r} in the {where}: teach the prover to send it (prover.py)")
        naming, kinds, plainly, plains = _PARAMETERS[where]
        if name in kinds:
            slots.append(Slot(where, name, kinds[name]))
        elif name not in plains:
            raise NotCovered(
                f"{title} takes {name!r} in the {where}: add it to {naming} of tests/isolation/catalog.py when it can "
                f"name an object, else to {plainly}"
            )
        elif where == "path":
            plain.append(name)
    bodies: tuple[dict[str, Any] | None, ...] = (None,)
    if "requestBody" in operation:
        schema = _schema_name(title, operation["requestBody"])
        properties = set(document["components"]["schemas"][schema]["properties"])
        naming_fields = set() if schema in catalog.MODELS_NOT_AGENTS else properties & set(catalog.FIELDS)
        unknown = properties - naming_fields - catalog.PLAIN_FIELDS.get(schema, set())
        if unknown:
            raise NotCovered(
                f"{title} takes {sorted(unknown)} in its body ({schema}): add each to FIELDS of "
                f"tests/isolation/catalog.py when it can name an object, else to PLAIN_FIELDS[{schema!r}]"
            )
        if schema not in catalog.BODIES:
            raise NotCovered(f"{title} takes a {schema}: add a valid one to BODIES of tests/isolation/catalog.py")
        bodies = tuple(catalog.BODIES[schema])
        slots += [Slot("body", name, catalog.FIELDS[name]) for name in sorted(naming_fields)]
    return Operation(method, path, tuple(slots), tuple(plain), bodies)


def _schema_name(title: str, body: Mapping[str, Any]) -> str:
    content = body["content"]
    reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
    if set(content) != {"application/json"} or not reference:
        raise NotCovered(f"{title} takes a body that is no named JSON schema: teach the prover to send it (prover.py)")
    return str(reference.rpartition("/")[2])


@dataclass(slots=True)
class Prover:
    """One attacker's tries on some victims."""

    operations: list[Operation]
    attacker: Tenant
    victims: list[Tenant]
    proof: Proof = field(default_factory=Proof)
    _of_tenants: re.Pattern[str] = field(init=False)
    _of_administrators: re.Pattern[str] = field(init=False)
    """What a role may not be told."""

    def __post_init__(self) -> None:
        words = set(chain.from_iterable(victim.canaries() for victim in self.victims))
        self._of_tenants = _any_of(words)
        self._of_administrators = _any_of(words.difference(*(victim.platforms for victim in self.victims)))
        self.proof.operations = len(self.operations)

    def attack(self, clients: Mapping[str, httpx2.Client]) -> Proof:
        """Try every operation with each of the keys, by role; `admin` is the platform's."""
        for role, client in clients.items():
            for operation in self.operations:
                if role == "admin" and operation.is_platforms:
                    continue  # it is what administrators are for
                for body in operation.bodies:
                    self._attack(client, role, operation, body)
        return self.proof

    def _attack(self, client: httpx2.Client, role: str, operation: Operation, body: dict[str, Any] | None) -> None:
        if operation.method == "get" or not any(slot.where == "path" for slot in operation.slots):
            answer = self._send(client, operation, body, None, "")
            self._check_told(role, f"{operation} with nothing of a victim's", answer, "")
        for slot in operation.slots:
            self._attack_slot(client, role, operation, body, slot)

    def _attack_slot(
        self, client: httpx2.Client, role: str, operation: Operation, body: dict[str, Any] | None, slot: Slot
    ) -> None:
        # By the form of the reference; where it may be a place in a list, by where the unknown one stands.
        expected: dict[str, tuple[int, Any]] = {}
        tries = [(kind, ref) for victim in self.victims for kind, refs in victim.refs.items() for ref in refs]
        for kind, ref in tries:
            title = f"{operation} with a victim's {kind} as {slot.name} in the {slot.where}"
            unknown = unknown_like(ref)
            form = unknown if slot.where == "query" else ref.replace(core(ref), "")
            if form not in expected:
                expected[form] = _told(self._send(client, operation, body, slot, unknown), unknown)
            self.proof.tried.add((role, str(operation), ref))
            answer = self._send(client, operation, body, slot, ref)
            self._check_told(role, title, answer, ref)
            told = _told(answer, ref)
            if told != expected[form]:
                self._violated(role, title, f"answers {told}, but to an unknown one {expected[form]}")
            elif slot.where == "path" and answer.status_code not in (403, 404):
                self._violated(role, title, f"is answered {answer.status_code}")

    def _send(
        self, client: httpx2.Client, operation: Operation, body: dict[str, Any] | None, slot: Slot | None, ref: str
    ) -> httpx2.Response:
        path = operation.path
        for name in operation.plain_paths:
            path = path.replace(f"{{{name}}}", "1")
        query: dict[str, Any] = {}
        headers: dict[str, str] = {}
        sent = {key: uuid4().hex if value == "{new}" else value for key, value in (body or {}).items()}
        for other in operation.slots:
            value = ref if other == slot else self.attacker.ref(other.own)
            if other.where == "path":
                path = path.replace(f"{{{other.name}}}", value)
            elif other.where == "body":
                if other.name in sent:
                    sent[other.name] = value
            elif other == slot and other.where == "query":
                query[other.name] = value
            elif other == slot:
                headers[other.name] = value
        self.proof.tries += 1
        for _ in range(BUSY_TRIES):
            with client.stream(
                operation.method.upper(), path, params=query, headers=headers, json=sent if body is not None else None
            ) as stream:
                answer = _read(stream, endless=operation.method == "get")
            if answer.status_code != 503:  # of a machine that is busy; says nothing of anybody's objects
                break
            time.sleep(float(answer.headers["retry-after"]))
        if answer.status_code == 202:
            _await_end(client, answer.json()["id"])
        return answer

    def _check_told(self, role: str, title: str, answer: httpx2.Response, asked: str) -> None:
        whole = str(answer.headers) + answer.content.decode(errors="replace")
        secret = self._of_administrators if role == "admin" else self._of_tenants
        told = {word for word in secret.findall(whole) if not asked or core(word) != core(asked)}
        if told:
            self._violated(role, title, f"({answer.status_code}) tells {sorted(told)}")

    def _violated(self, role: str, title: str, what: str) -> None:
        self.proof.violations.append(f"{role}: {title} {what}"[:1000])  # a page may be long


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(sorted(map(re.escape, words), key=len, reverse=True)))


def _await_end(client: httpx2.Client, run_id: str) -> None:
    def ended() -> bool:
        run = client.get(f"/v1/runs/{run_id}")
        return bool(run.json().get("status") not in ("queued", "running"))

    wait_until(ended, seconds=30, what=f"{run_id} has ended")


def _read(stream: httpx2.Response, *, endless: bool) -> httpx2.Response:
    """The answer with its body; if `endless`, of a stream of events only what comes in its first moments."""
    bounded = endless and stream.headers.get("content-type", "").startswith("text/event-stream")
    until = time.monotonic() + STREAM_SECONDS
    body = bytearray()
    for part in stream.iter_bytes():
        body += part
        if bounded and time.monotonic() > until:
            break
    return httpx2.Response(stream.status_code, headers=stream.headers, content=bytes(body), request=stream.request)


def core(ref: str) -> str:
    """The part of a reference that makes it unique: run_X, resp_X and chatcmpl-run_X are names of one run."""
    return max(re.findall(r"[0-9A-Za-z]+", ref), key=len)


def unknown_like(ref: str) -> str:
    """A reference of the same form that nobody has."""
    return ref.replace(core(ref), core(ref)[:-6] + "zzzzzz")


def _told(answer: httpx2.Response, ref: str) -> tuple[int, Any]:
    """What an answer tells of a reference: the status, of a refusal also its problem, and what was read."""
    if answer.status_code < 400 and answer.request.method != "GET":
        return answer.status_code, None  # it tells of what was made, whose ids are new
    text = answer.text.replace(core(ref), "REF")
    if "json" not in answer.headers.get("content-type", ""):
        return answer.status_code, text
    told: Any = json.loads(text)
    if answer.status_code < 400:
        return answer.status_code, _lasting(told)
    if isinstance(told, dict):
        told.pop("instance", None)  # the request's id
    return answer.status_code, told


def _lasting(told: Any) -> Any:
    if isinstance(told, dict):
        return {name: _lasting(value) for name, value in told.items() if name not in VOLATILE}
    return [_lasting(value) for value in told] if isinstance(told, list) else told

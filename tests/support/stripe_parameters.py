"""How Stripe reads the parameters of a request, and what it says of those that it does not take."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import parse_qsl

Kind = Callable[[str, Any], Any]
"""Reads the value of a parameter, given its full name. Raises Refused."""

_CLAUSE = re.compile(r"""metadata\[(["'])(?P<key>.+?)\1\]\s*:\s*(["'])(?P<value>(?:\\.|(?!\3)[^\\])*)\3""")


class Refused(Exception):
    """What Stripe does not do. `error` is its error object: https://docs.stripe.com/api/errors."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        said = {"type": kind, "code": code, "message": message, "param": param}
        self.error = {name: value for name, value in said.items() if value is not None}


def missing(what: str, name: str, param: str, status: int = 400) -> NoReturn:
    """There is no such object: 404 for that of the path, 400 for one that a parameter names."""
    raise Refused(f"No such {what}: '{name}'", status, code="resource_missing", param=param)


def decoded(form: str) -> dict[str, Any]:
    """The parameters of a form or a query, nested as their brackets say."""
    found: dict[str, Any] = {}
    for name, value in parse_qsl(form, keep_blank_values=True):
        *outer, last = re.findall(r"[^\[\]]+", name) or [name]
        place = found
        for key in outer:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise Refused(f"Invalid parameter: {name}", param=name)
        place[last] = value
    return found


def text(most: int = 5000) -> Kind:
    """Text of at most so many characters, and not empty."""

    def read(name: str, given: Any) -> str:
        if not isinstance(given, str):
            raise Refused(f"Invalid string: {given}", param=name)
        if not given:
            raise Refused(
                f"You passed an empty string for '{name}'. We assume empty values are an attempt to unset a parameter; "
                f"however '{name}' cannot be unset. You should remove '{name}' from your request or supply a non-empty "
                "value.",
                code="parameter_invalid_empty",
                param=name,
            )
        if len(given) > most:
            raise Refused(f"Invalid string: {given[:4]}...{given[-4:]}; must be at most {most} characters", param=name)
        return given

    return read


def whole(least: int = -(10**12), most: int = 10**12) -> Kind:
    """A whole number between these two."""

    def read(name: str, given: Any) -> int:
        if not isinstance(given, str) or not re.fullmatch(r"-?[0-9]{1,15}", given):
            complaint = f"Invalid integer: {given}"
        elif int(given) < least:
            complaint = f"This value must be greater than or equal to {least}."
        elif int(given) > most:
            complaint = f"This value must be less than or equal to {most}."
        else:
            return int(given)
        raise Refused(complaint, code="parameter_invalid_integer", param=name)

    return read


def choice(*allowed: str) -> Kind:
    """One of some words."""

    def read(name: str, given: Any) -> str:
        if given not in allowed:
            raise Refused(f"Invalid {name}: must be one of {', '.join(allowed[:-1])}, or {allowed[-1]}", param=name)
        return str(given)

    return read


def flag(name: str, given: Any) -> bool:
    """true or false."""
    if given not in ("true", "false"):
        raise Refused(f"Invalid boolean: {given}", param=name)
    return bool(given == "true")


def currency(name: str, given: Any) -> str:
    """A currency's code, in lower case; not the one for no currency."""
    if not isinstance(given, str) or not re.fullmatch(r"[A-Za-z]{3}", given) or given.lower() == "xxx":
        raise Refused(f"Invalid currency: {given}", param=name)
    return given.lower()


def metadata(name: str, given: Any) -> dict[str, str]:
    """At most 50 pairs with keys of 40 and values of 500 characters; an empty value is that of no pair."""
    if given == "":
        return {}
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise Refused("Invalid metadata: it must be a set of key-value pairs", param=name)
    for key, value in given.items():
        if len(key) > 40 or len(value) > 500:
            what, size, most = ("values", len(value), 500) if len(key) <= 40 else ("keys", len(key), 40)
            raise Refused(
                f"Metadata {what} can have up to {most} characters, but you passed in one that is {size} characters.",
                param=f"{name}[{key}]",
            )
    if len(given) > 50:
        raise Refused("You can have up to 50 keys of metadata.", param=name)
    return {key: value for key, value in given.items() if value}


def clause(name: str, given: Any) -> tuple[str, str]:
    """The key and the value of a search for metadata: https://docs.stripe.com/search#search-query-language."""
    found = _CLAUSE.fullmatch(given.strip()) if isinstance(given, str) else None
    if found is None:
        raise Refused("We were unable to parse your search query.", param=name)
    return found["key"], re.sub(r"\\(.)", r"\1", found["value"])


def each(kind: Kind) -> Kind:
    """A list, with its items numbered."""

    def read(name: str, given: Any) -> list[Any]:
        if not isinstance(given, dict) or not given or not all(key.isdecimal() for key in given):
            raise Refused("Invalid array", param=name)
        return [kind(f"{name}[{key}]", given[key]) for key in sorted(given, key=int)]

    return read


def fields(*required: str, **known: Kind) -> Kind:
    """An object, or all parameters of a request, which have no name before theirs."""

    def read(name: str, given: Any) -> dict[str, Any]:
        def full(key: str) -> str:
            return f"{name}[{key}]" if name else key

        if not isinstance(given, dict):
            raise Refused("Invalid object", param=name)
        for key in given:
            if key not in known:
                raise Refused(f"Received unknown parameter: {full(key)}", code="parameter_unknown", param=full(key))
        for key in required:
            if key not in given:
                raise Refused(f"Missing required param: {full(key)}.", code="parameter_missing", param=full(key))
        return {key: known[key](full(key), value) for key, value in given.items()}

    return read

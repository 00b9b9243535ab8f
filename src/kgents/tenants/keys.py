"""The form of API keys: `kg_<id>_<secret><checksum>`, and the hash that is stored of them. No I/O.

The id (16 characters, lower-case base 32) sorts by creation and is no secret. The secret is 256 random bits in base 62
(43 characters). The checksum is a CRC-32 over all that precedes it, in base 62 (6 characters): a mistyped or cut key
is refused without asking the database. It is no protection against guessing; the secret's length is.
"""

from __future__ import annotations

import hmac
import re
import secrets
import string
from dataclasses import dataclass, field
from zlib import crc32

from kgents.clock import Clock, SystemClock

TOKEN_LENGTH = 69
ID = slice(3, 19)  # where a token holds the key's id
MIN_PEPPER_BYTES = 16

_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_TOKEN = re.compile(r"kg_([0-9a-hjkmnp-tv-z]{16})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})", re.ASCII)
_PEPPER = re.compile(r"v([1-9][0-9]{0,8}):(.*)", re.ASCII)


class Peppers(dict[int, bytes]):
    """The server's secrets that hashes are made with, by version. Does not show them."""

    @property
    def current(self) -> int:
        """The version that new keys are hashed with: the first of the setting."""
        return next(iter(self))

    def __repr__(self) -> str:
        return f"Peppers(versions={sorted(self)})"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A token of the right form: its key's id, and the secret that is yet to be proved."""

    key_id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. `token` is shown to its owner once; only `digest` is stored."""

    key_id: str
    token: str = field(repr=False)
    digest: bytes = field(repr=False)
    pepper_version: int


def parse_peppers(setting: str) -> Peppers:
    """The peppers of the setting `v2:<hex>,v1:<hex>`, or of one plain value, which is version 1.

    The first makes the hashes of new keys, the others still check old ones; so a new pepper reaches every process as
    `v1:...,v2:...` before the order is turned round. A value that is hexadecimal stands for its bytes, anything else
    for its UTF-8 text. Raises ValueError, without the value, when one is missing, short, or a version is given twice.
    """
    found = Peppers()
    parts = [part.strip() for part in setting.split(",")]
    for part in parts:
        match = _PEPPER.fullmatch(part)
        if match is None and len(parts) > 1:
            raise ValueError("several peppers need a version each, as in v2:<hex>,v1:<hex>")
        version, value = (int(match[1]), match[2]) if match else (1, part)
        if version in found:
            raise ValueError(f"the pepper's version v{version} is given twice")
        found[version] = _pepper_bytes(value)
    return found


def _pepper_bytes(value: str) -> bytes:
    try:
        pepper = bytes.fromhex(value)
    except ValueError:
        pepper = value.encode()
    if len(pepper) < MIN_PEPPER_BYTES:
        raise ValueError(
            f"the pepper has {len(pepper)} bytes and needs at least {MIN_PEPPER_BYTES}; "
            "make one with: openssl rand -hex 32"
        )
    return pepper


def generate(peppers: Peppers, clock: Clock | None = None) -> NewKey:
    """A new key: its id from the time in milliseconds and 35 random bits, its secret from 256 random bits."""
    millis = (clock or SystemClock()).now() // 1000
    key_id = _encode((millis << 35 | secrets.randbits(35)) & ((1 << 80) - 1), _BASE32, 16)
    secret = _encode(secrets.randbits(256), _BASE62, 43)
    body = f"kg_{key_id}_{secret}"
    version = peppers.current
    return NewKey(key_id, body + _checksum(body), digest(peppers[version], secret), version)


def parse(token: str | bytes) -> ParsedKey | None:
    """The parts of a token, or None when it is not one: wrong form or wrong checksum. Never raises."""
    text = token if isinstance(token, str) else token.decode("latin-1")
    if len(text) != TOKEN_LENGTH:
        return None
    match = _TOKEN.fullmatch(text)
    if match is None or _checksum(text[:-6]) != match[3]:
        return None
    return ParsedKey(match[1], match[2])


def digest(pepper: bytes, secret: str) -> bytes:
    """HMAC-SHA-256 of a secret (RFC 2104). A plain hash is enough for 256 random bits; the pepper makes a stolen
    database useless for guessing, and keeps who can write to it from making keys.
    """
    return hmac.digest(pepper, secret.encode("ascii"), "sha256")


def matches(pepper: bytes, secret: str, expected: bytes) -> bool:
    """Whether a secret has this digest, in constant time."""
    return hmac.compare_digest(digest(pepper, secret), expected)


def _encode(value: int, alphabet: str, width: int) -> str:
    base = len(alphabet)
    characters: list[str] = []
    for _ in range(width):
        value, remainder = divmod(value, base)
        characters.append(alphabet[remainder])
    return "".join(reversed(characters))


def _checksum(body: str) -> str:
    return _encode(crc32(body.encode("ascii")), _BASE62, 6)

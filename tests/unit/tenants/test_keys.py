"""The form of API keys."""

import re
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgents.clock import ManualClock
from kgents.tenants import keys

PEPPERS = keys.parse_peppers("v2:" + "22" * 32 + ",v1:" + "11" * 32)


def test_a_key_is_an_id_and_256_bits_and_a_checksum():
    new = keys.generate(PEPPERS)

    assert re.fullmatch(r"kg_[0-9a-hjkmnp-tv-z]{16}_[0-9A-Za-z]{49}", new.token)
    assert len(new.token) == keys.TOKEN_LENGTH
    assert new.token[keys.ID] == new.key_id


def test_a_new_key_parses_and_proves_itself():
    new = keys.generate(PEPPERS)

    parsed = keys.parse(new.token)

    assert parsed is not None
    assert parsed.key_id == new.key_id
    assert keys.matches(PEPPERS[new.pepper_version], parsed.secret, new.digest)


def test_another_secret_does_not_match():
    new, other = keys.generate(PEPPERS), keys.parse(keys.generate(PEPPERS).token)

    assert other is not None
    assert not keys.matches(PEPPERS[new.pepper_version], other.secret, new.digest)


def test_the_digest_is_hmac_sha256():
    # Test case 2 of RFC 4231, with the pepper as its key.
    assert keys.digest(b"Jefe", "what do ya want for nothing?").hex() == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


def test_ids_sort_by_creation():
    clock = ManualClock()
    ids = []
    for _ in range(100):
        ids.append(keys.generate(PEPPERS, clock).key_id)
        clock.advance(0.001)

    assert ids == sorted(ids)


def test_keys_differ():
    made = [keys.generate(PEPPERS, ManualClock()) for _ in range(1000)]

    assert len({new.token[20:] for new in made}) == 1000
    assert len({new.key_id for new in made}) == 1000


@pytest.mark.parametrize("position", range(keys.TOKEN_LENGTH))
def test_one_wrong_character_anywhere_is_refused(position):
    token = keys.generate(PEPPERS).token
    other = "x" if token[position] != "x" else "y"

    assert keys.parse(token[:position] + other + token[position + 1 :]) is None


@pytest.mark.parametrize("position", range(20, keys.TOKEN_LENGTH - 1))
def test_two_swapped_characters_are_refused(position):
    token = keys.generate(PEPPERS).token
    swapped = token[:position] + token[position + 1] + token[position] + token[position + 2 :]

    assert keys.parse(swapped) is None or swapped == token


def test_the_checksum_is_crc32_in_base_62():
    token = keys.generate(PEPPERS).token
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    value = 0
    for character in token[-6:]:
        value = value * 62 + alphabet.index(character)

    assert value == crc32(token[:-6].encode())


@given(st.one_of(st.text(), st.binary(), st.text(min_size=69, max_size=69), st.binary(min_size=69, max_size=69)))
def test_anything_can_be_parsed(token):
    assert keys.parse(token) is None


@given(st.text(alphabet="kg_0123456789abcdefghjkmnpqrstvwxyzAZ", min_size=60, max_size=75))
def test_what_looks_like_a_key_can_be_parsed(token):
    assert keys.parse(token) is None


@pytest.mark.parametrize("around", [" {}", "{} ", "{}\n", "{}\0", "Bearer {}"])
def test_a_key_with_something_around_it_is_refused(around):
    assert keys.parse(around.format(keys.generate(PEPPERS).token)) is None


def test_bytes_are_parsed_like_text():
    token = keys.generate(PEPPERS).token

    assert keys.parse(token.encode()) == keys.parse(token)


def test_no_repr_shows_a_secret():
    new = keys.generate(PEPPERS)
    parsed = keys.parse(new.token)
    assert parsed is not None

    shown = f"{new!r} {new} {parsed!r} {parsed} {PEPPERS!r} {PEPPERS} {[PEPPERS]}"

    assert parsed.secret not in shown
    assert repr(new.digest) not in shown
    assert repr(PEPPERS[1]) not in shown
    assert PEPPERS[1].hex() not in shown


def test_the_first_pepper_is_for_new_keys():
    assert PEPPERS.current == 2
    assert keys.generate(PEPPERS).pepper_version == 2


def test_a_plain_pepper_is_version_1():
    assert keys.parse_peppers("a passphrase of some length") == {1: b"a passphrase of some length"}


def test_a_plain_pepper_keeps_its_meaning_as_version_1():
    plain = "ab" * 32

    assert keys.parse_peppers(plain)[1] == keys.parse_peppers(f"v2:{'cd' * 32},v1:{plain}")[1]


@pytest.mark.parametrize(
    "setting",
    [
        "",
        "short",
        "v1:",
        "v1:abcd",
        "v1:" + "11" * 32 + ",v1:" + "22" * 32,
        "11" * 32 + "," + "22" * 32,
        "v1:" + "11" * 32 + ",",
    ],
)
def test_a_bad_pepper_is_refused_and_not_repeated(setting):
    with pytest.raises(ValueError, match="pepper") as caught:
        keys.parse_peppers(setting)

    assert "11" * 32 not in str(caught.value)

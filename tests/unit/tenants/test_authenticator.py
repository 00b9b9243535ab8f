"""Checking API keys, with a store whose rows and speed the test decides."""

import asyncio
from dataclasses import replace

import pytest

from kgents.clock import SECOND
from kgents.errors import RateLimited, Unauthenticated, Unavailable
from kgents.store.changes import Change
from kgents.tenants import authenticator as module
from kgents.tenants import keys
from kgents.tenants.attempts import WRONG_A_MINUTE
from kgents.tenants.authenticator import Authenticator
from kgents.tenants.repository import Credential

PEPPERS = keys.parse_peppers("v1:" + "11" * 32)


class Rows:
    """Stands in for the store: answers reads of keys from `rows`, once `gate` is open."""

    dialect = "none"

    def __init__(self):
        self.rows = {}
        self.reads = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure = None

    async def read(self, scope, fn):
        self.reads += 1
        assert scope.setting == ""  # sees one key only, of whichever tenant
        found = self.rows.get(scope.key_id)
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return found


class Feed:
    """Says whether changes are heard of."""

    fresh = True

    def __call__(self):
        return self.fresh


@pytest.fixture
async def rows():
    return Rows()


@pytest.fixture
def feed():
    return Feed()


@pytest.fixture
def subject(rows, clock, feed):
    return Authenticator(rows, clock, PEPPERS, feed)


def issue(rows, clock, **fields):
    """A key that the store knows; answers its token."""
    new = keys.generate(PEPPERS, clock)
    values = {
        "tenant_id": "ten_1",
        "scopes": frozenset({"runs:read"}),
        "expires_at": None,
        "revoked_at": None,
        "last_used_at": None,
        "tenant_status": "active",
        "requests_per_minute": 7,
        "tokens_per_minute": None,
        **fields,
    }
    rows.rows[new.key_id] = Credential(
        key_id=new.key_id, digest=new.digest, pepper_version=new.pepper_version, **values
    )
    return new.token


def alter(rows, token, **fields):
    """Change the row of a key."""
    key_id = token[keys.ID]
    rows.rows[key_id] = replace(rows.rows[key_id], **fields)


def with_other_secret(token):
    """A well-formed token with this token's id and another secret."""
    body = token[:20] + keys.generate(PEPPERS).token[20:63]
    return body + keys._checksum(body)


def changed(kind, ref, tenant_id="ten_1"):
    return Change(seq=1, tenant_id=tenant_id, kind=kind, ref=ref)


async def refusal(subject, token):
    with pytest.raises(Unauthenticated) as caught:
        await subject.authenticate(token)
    return caught.value


async def test_a_good_key_stands_for_its_tenant_and_scopes(subject, rows, clock):
    token = issue(rows, clock)

    principal = await subject.authenticate(token)

    assert (principal.tenant_id, principal.key_id) == ("ten_1", token[keys.ID])
    assert principal.scopes == {"runs:read"}
    assert (principal.requests_per_minute, principal.tokens_per_minute) == (7, None)


async def test_a_key_is_not_cached_before_it_was_checked(subject, rows, clock):
    assert subject.cached(issue(rows, clock)) is None


async def test_a_checked_key_is_known_without_a_read(subject, rows, clock):
    token = issue(rows, clock)
    principal = await subject.authenticate(token)

    assert subject.cached(token) == principal
    assert await subject.authenticate(token) == principal
    assert rows.reads == 1


@pytest.mark.parametrize("token", ["", "x", "kg_", "\ud800" * 69, "kg_" + "0" * 66, "\0" * 69, "é" * 69])
async def test_what_is_no_key_is_refused_without_a_read(subject, rows, token):
    assert subject.cached(token) is None
    await refusal(subject, token)

    assert rows.reads == 0


async def test_garbage_after_a_known_id_is_not_cached(subject, rows, clock):
    token = issue(rows, clock)
    await subject.authenticate(token)

    assert subject.cached(token[:20] + "\ud800" * 49) is None


async def test_unknown_and_wrong_and_mistyped_keys_get_one_answer(subject, rows, clock):
    token = issue(rows, clock)
    expired = issue(rows, clock, expires_at=1)
    revoked = issue(rows, clock, revoked_at=1)
    suspended = issue(rows, clock, tenant_status="suspended")
    tokens = [
        keys.generate(PEPPERS).token,
        token[:-1] + "!",
        "",
        *map(with_other_secret, [token, expired, revoked, suspended]),
    ]

    answers = [await refusal(subject, wrong) for wrong in tokens * 2]

    assert len({(error.detail, error.code, str(error.headers)) for error in answers}) == 1


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"expires_at": 1}, "api-key-expired"),
        ({"revoked_at": 1}, "api-key-revoked"),
        ({"revoked_at": 1, "expires_at": 1}, "api-key-revoked"),
        ({"tenant_status": "suspended"}, "tenant-suspended"),
        ({"tenant_status": "deleted"}, "tenant-deleted"),
    ],
)
async def test_who_proves_the_secret_is_told_why_a_key_stopped(subject, rows, clock, fields, code):
    token = issue(rows, clock, **fields)

    first, second = await refusal(subject, token), await refusal(subject, token)

    assert first.code == second.code == code
    assert subject.cached(token) is None


async def test_a_401_carries_a_challenge(subject):
    assert (await refusal(subject, "")).headers["WWW-Authenticate"].startswith("Bearer ")


async def test_expiry_is_checked_on_every_use(subject, rows, clock):
    token = issue(rows, clock, expires_at=clock.now() + 10 * SECOND)
    await subject.authenticate(token)
    clock.advance(9.999)
    before = subject.cached(token)
    clock.advance(0.001)

    assert before is not None
    assert subject.cached(token) is None
    assert (await refusal(subject, token)).code == "api-key-expired"


async def test_a_change_of_the_key_is_seen(subject, rows, clock):
    token = issue(rows, clock)
    await subject.authenticate(token)
    alter(rows, token, revoked_at=clock.now())

    subject.apply(changed("api_key", token[keys.ID]))

    assert subject.cached(token) is None
    await refusal(subject, token)


async def test_a_change_of_the_tenant_is_seen_by_all_its_keys(subject, rows, clock):
    tokens = [issue(rows, clock) for _ in range(3)]
    for token in tokens:
        await subject.authenticate(token)

    subject.apply(changed("tenant", "ten_1"))

    assert [subject.cached(token) for token in tokens] == [None] * 3


async def test_a_change_of_another_tenant_costs_no_read(subject, rows, clock):
    token = issue(rows, clock)
    await subject.authenticate(token)

    subject.apply(changed("tenant", "ten_2", "ten_2"))
    subject.apply(changed("agent", token[keys.ID]))

    assert subject.cached(token) is not None


async def test_nothing_is_trusted_while_the_feed_is_stuck(subject, rows, clock, feed):
    token = issue(rows, clock)
    await subject.authenticate(token)
    alter(rows, token, revoked_at=clock.now())

    feed.fresh = False

    assert subject.cached(token) is None
    assert (await refusal(subject, token)).code == "api-key-revoked"


async def test_a_good_key_works_while_the_feed_is_stuck(subject, rows, clock, feed):
    token = issue(rows, clock)
    feed.fresh = False

    assert await subject.authenticate(token)
    assert await subject.authenticate(token)
    assert rows.reads == 2


async def test_a_wrong_secret_of_a_known_key_costs_no_read_while_the_feed_is_stuck(subject, rows, clock, feed):
    token = issue(rows, clock)
    await subject.authenticate(token)
    feed.fresh = False

    await refusal(subject, with_other_secret(token))

    assert rows.reads == 1


async def test_what_was_read_before_the_feed_was_heard_is_not_kept(subject, rows, clock, feed):
    token = issue(rows, clock)
    feed.fresh = False
    await subject.authenticate(token)
    alter(rows, token, revoked_at=clock.now())

    feed.fresh = True

    assert subject.cached(token) is None
    await refusal(subject, token)


@pytest.mark.parametrize("change", ["api_key", "tenant", "clear"])
async def test_what_was_read_before_a_change_is_not_kept_after_it(subject, rows, clock, change):
    token = issue(rows, clock)
    rows.gate.clear()
    early = asyncio.create_task(subject.authenticate(token))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    alter(rows, token, revoked_at=clock.now())
    if change == "clear":
        subject.clear()
    else:
        subject.apply(changed(change, token[keys.ID] if change == "api_key" else "ten_1"))

    late = asyncio.create_task(refusal(subject, token))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    rows.gate.set()

    assert await early  # it came before the revocation
    assert (await late).code == "api-key-revoked"
    assert subject.cached(token) is None


async def test_requests_that_come_at_once_share_a_read(subject, rows, clock):
    token = issue(rows, clock)
    rows.gate.clear()
    waiting = [asyncio.create_task(subject.authenticate(token)) for _ in range(50)]
    await asyncio.sleep(0)
    rows.gate.set()

    assert len(set(await asyncio.gather(*waiting))) == 1
    assert rows.reads == 1


async def test_a_client_that_goes_away_does_not_take_the_read_with_it(subject, rows, clock):
    token = issue(rows, clock)
    rows.gate.clear()
    first = asyncio.create_task(subject.authenticate(token))
    await asyncio.sleep(0)
    second = asyncio.create_task(subject.authenticate(token))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    rows.gate.set()

    assert await second
    assert rows.reads == 1


async def test_nobody_waits_for_a_read_that_hangs_since_before_the_revocation(subject, rows, clock):
    token = issue(rows, clock)
    rows.gate.clear()
    early = asyncio.create_task(subject.authenticate(token))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    alter(rows, token, revoked_at=clock.now())
    clock.advance(0.9)
    late = asyncio.create_task(refusal(subject, token))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    rows.gate.set()

    assert (await late).code == "api-key-revoked"
    await early
    assert subject.cached(token) is None


async def test_a_read_that_was_given_up_waiting_for_is_not_kept(subject, rows, clock):
    token = issue(rows, clock)
    rows.gate.clear()
    waiting = [asyncio.create_task(subject.authenticate(token))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    clock.advance(0.9)
    waiting.append(asyncio.create_task(subject.authenticate(token)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    alter(rows, token, revoked_at=clock.now())
    subject.apply(changed("api_key", token[keys.ID]))
    rows.gate.set()
    await asyncio.gather(*waiting)

    assert rows.reads == 2
    assert subject.cached(token) is None


async def test_a_database_that_is_away_is_no_verdict(subject, rows, clock):
    token = issue(rows, clock)
    rows.failure = Unavailable("away")
    with pytest.raises(Unavailable):
        await subject.authenticate(token)

    rows.failure = None

    assert await subject.authenticate(token)


async def test_guessing_at_a_known_key_costs_one_read_and_no_memory(subject, rows, clock):
    token = issue(rows, clock)
    for _ in range(500):
        await refusal(subject, with_other_secret(token))

    assert (rows.reads, subject.size) == (1, 1)


async def test_guessing_at_unknown_keys_is_bounded_in_memory(subject, rows, monkeypatch):
    monkeypatch.setattr(module, "MAX_UNKNOWN", 100)
    for _ in range(500):
        await refusal(subject, keys.generate(PEPPERS).token)

    assert subject.size == 100


async def test_one_unknown_key_is_read_once_in_a_while(subject, rows, clock):
    token = keys.generate(PEPPERS).token
    for _ in range(10):
        await refusal(subject, token)
    clock.advance(module.UNKNOWN_SECONDS)
    await refusal(subject, token)

    assert rows.reads == 2


async def test_a_key_that_comes_to_be_is_seen_with_its_change(subject, rows, clock):
    token = issue(rows, clock)
    row = rows.rows.pop(token[keys.ID])
    await refusal(subject, token)
    rows.rows[token[keys.ID]] = row

    subject.apply(changed("api_key", token[keys.ID]))

    assert await subject.authenticate(token)


async def test_known_keys_are_bounded_in_memory_and_the_least_used_goes_first(subject, rows, clock, monkeypatch):
    monkeypatch.setattr(module, "MAX_KEYS", 10)
    favourite = issue(rows, clock)
    await subject.authenticate(favourite)
    for number in range(50):
        await subject.authenticate(issue(rows, clock, tenant_id=f"ten_{number}"))
        assert subject.cached(favourite)

    assert subject.size == 10
    assert len(subject._by_tenant) == 10


async def test_an_unknown_key_costs_the_same_hash_as_a_known_one(subject, rows, clock, monkeypatch):
    known, unknown = issue(rows, clock), keys.generate(PEPPERS).token
    calls = []
    honest = keys.matches
    monkeypatch.setattr(keys, "matches", lambda *args: calls.append(len(args[2])) or honest(*args))

    await refusal(subject, with_other_secret(known))
    of_known = calls.copy()
    calls.clear()
    await refusal(subject, unknown)

    assert of_known == calls == [32]


async def test_a_key_whose_pepper_is_gone_is_refused(rows, clock, feed):
    token = issue(rows, clock)
    subject = Authenticator(rows, clock, keys.parse_peppers("v2:" + "22" * 32), feed)

    assert (await refusal(subject, token)).code == "unauthenticated"


async def test_a_key_of_an_older_pepper_works(rows, clock, feed):
    token = issue(rows, clock)
    subject = Authenticator(rows, clock, keys.parse_peppers(f"v2:{'22' * 32},v1:{'11' * 32}"), feed)

    assert await subject.authenticate(token)


async def test_uses_are_noted_at_most_once_a_minute(subject, rows, clock, monkeypatch):
    written = []
    monkeypatch.setattr(module.repository, "touch_keys", lambda _, used, grain: written.extend(used))
    token = issue(rows, clock)
    await subject.authenticate(token)
    started = clock.now()
    for _ in range(90):
        clock.advance(1)
        assert subject.cached(token)
        subject.flush_last_used(None)

    assert written == [("ten_1", token[keys.ID], started), ("ten_1", token[keys.ID], started + 60 * SECOND)]


async def test_uses_that_could_not_be_written_are_kept(subject, rows, clock, monkeypatch):
    written = []

    def away(*_):
        raise OSError

    await subject.authenticate(issue(rows, clock))
    monkeypatch.setattr(module.repository, "touch_keys", away)
    with pytest.raises(OSError):  # noqa: PT011
        subject.flush_last_used(None)
    monkeypatch.setattr(module.repository, "touch_keys", lambda _, used, grain: written.extend(used))

    assert subject.flush_last_used(None) == 1
    assert len(written) == 1


async def test_a_refused_key_is_not_noted_as_used(subject, rows, clock):
    token = issue(rows, clock, revoked_at=1)
    await refusal(subject, token)
    await refusal(subject, with_other_secret(issue(rows, clock)))

    assert subject.flush_last_used(None) == 0


async def test_no_error_and_no_repr_holds_a_secret(subject, rows, clock):
    good, expired = issue(rows, clock), issue(rows, clock, expires_at=1)
    principal = await subject.authenticate(good)
    errors = [
        await refusal(subject, token) for token in (expired, with_other_secret(good), keys.generate(PEPPERS).token)
    ]

    shown = repr([principal, subject, list(rows.rows.values()), errors, [vars(error) for error in errors]])

    for token in (good, expired):
        assert token[20:63] not in shown
        assert repr(rows.rows[token[keys.ID]].digest) not in shown


@pytest.fixture
def work(monkeypatch):
    """What is computed to check a key, in order."""
    done = []

    def counted(module, name):
        call = getattr(module, name)

        def counting(*args, **kwargs):
            done.append(name)
            return call(*args, **kwargs)

        monkeypatch.setattr(module, name, counting)

    counted(keys.hmac, "digest")
    counted(keys.hmac, "compare_digest")
    return done


async def test_every_wrong_key_costs_the_same_work(subject, rows, clock, work):
    """One HMAC and one comparison in constant time, whether the key exists, and whatever has become of it. Counted, not
    timed: what a clock says of microseconds on a busy machine shows nothing.
    """
    good = issue(rows, clock)
    await subject.authenticate(good)
    tokens = {
        "of no key": keys.generate(PEPPERS).token,
        "of a key that is known here": with_other_secret(good),
        "of a key that is not yet": with_other_secret(issue(rows, clock)),
        "of a key that was revoked": with_other_secret(issue(rows, clock, revoked_at=1)),
        "of a key that has expired": with_other_secret(issue(rows, clock, expires_at=1)),
        "of a tenant that is suspended": with_other_secret(issue(rows, clock, tenant_status="suspended")),
    }
    seen = {}
    for what, token in tokens.items():
        for again in ("", " again"):
            work.clear()
            await refusal(subject, token)
            seen[what + again] = tuple(work)

    assert set(seen.values()) == {("digest", "compare_digest")}, seen


async def test_one_byte_that_is_right_changes_nothing_of_the_work(subject, rows, clock, work):
    good = issue(rows, clock)
    await subject.authenticate(good)
    seen = set()
    for right in (0, 1, 21, 42):
        body = good[: 20 + right] + ("A" if good[20 + right] != "A" else "B") + good[21 + right : 63]
        work.clear()
        assert subject.cached(body + keys._checksum(body)) is None
        await refusal(subject, body + keys._checksum(body))
        seen.add(tuple(work))

    assert seen == {("compare_digest", "digest", "compare_digest")}


async def test_too_many_wrong_keys_of_one_address_do_not_reach_the_database(subject, rows):
    for _ in range(WRONG_A_MINUTE):
        with pytest.raises(Unauthenticated):
            await subject.authenticate(keys.generate(PEPPERS).token, "198.51.100.1")
    reads = rows.reads

    with pytest.raises(RateLimited):
        await subject.authenticate(keys.generate(PEPPERS).token, "198.51.100.1")

    assert rows.reads == reads


async def test_a_good_key_that_is_known_passes_whatever_comes_from_its_address(subject, rows, clock):
    good = issue(rows, clock)
    await subject.authenticate(good, "198.51.100.1")
    for _ in range(WRONG_A_MINUTE + 1):
        with pytest.raises((Unauthenticated, RateLimited)):
            await subject.authenticate(with_other_secret(good), "198.51.100.1")

    assert (await subject.authenticate(good, "198.51.100.1")).tenant_id == "ten_1"

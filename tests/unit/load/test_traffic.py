"""The mix of requests."""

from __future__ import annotations

import json
from collections import Counter

from kgents.load.traffic import CHAT, RUN, RUNS_A_CYCLE, SESSION, STREAM, USAGE, Tenant, chats, kind_of, mixed

TENANTS = [
    Tenant(f"t{number}", [f"a{number}", f"b{number}"], [f"s{number}-{at}" for at in range(100)]) for number in range(4)
]


def test_the_mix_is_the_same_for_the_same_tenants():
    assert mixed(TENANTS) == mixed(TENANTS)


def test_every_kind_has_its_share():
    kinds = Counter(request.kind for request in mixed(TENANTS))

    assert kinds == {CHAT: 2800, RUN: 400, SESSION: 200, USAGE: 600}


def test_every_tenant_and_every_key_is_used():
    assert {request.key for request in mixed(TENANTS)} == {key for tenant in TENANTS for key in tenant.keys}


def test_no_session_is_asked_twice_in_a_cycle_and_only_by_its_tenant():
    runs = [request for request in mixed(TENANTS) if request.kind == RUN]

    assert len({request.path for request in runs}) == len(runs) == RUNS_A_CYCLE
    assert all(request.path.split("/")[3][1] == request.key[1] for request in runs)


def test_messages_have_different_sizes():
    sizes = {len(json.loads(request.body)["messages"][0]["content"].split()) for request in chats(TENANTS)}

    assert sizes == {12, 150, 1500}


def test_streams_ask_for_their_usage():
    asked = chats(TENANTS, stream=True)

    assert {request.kind for request in asked} == {STREAM}
    assert json.loads(asked[0].body)["stream_options"] == {"include_usage": True}


def test_a_kind_is_known_by_method_and_path():
    assert all(kind_of(request.method, request.path.partition("?")[0]) == request.kind for request in mixed(TENANTS))


def test_no_key_is_shown():
    assert "a1" not in repr(TENANTS[1])
    assert all(request.key not in repr(request) for request in mixed(TENANTS)[:20])

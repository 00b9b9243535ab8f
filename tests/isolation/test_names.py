"""Names are each tenant's own: what another has taken is free, and so no name tells of another's objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.isolation.systems import running
from tests.isolation.world import Tenant, tenant_with_everything


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Tenant, Tenant]]:
    with (
        running(request.param, tmp_path / "data") as system,
        tenant_with_everything(system.up) as one,
        tenant_with_everything(system.up) as other,
    ):
        yield one, other


def test_a_name_of_another_tenants_agent_is_free(pair: tuple[Tenant, Tenant]) -> None:
    one, other = pair
    name = other.refs["agent"][1]
    before = other.view()
    made = one.http["owner"].post("/v1/agents", json={"name": name, "model": "kgents:echo"})
    assert made.status_code == 201
    assert one.http["owner"].get(f"/v1/agents/{name}").json()["id"] == made.json()["id"]
    assert one.http["owner"].delete(f"/v1/agents/{name}").status_code == 200
    renamed = one.http["owner"].patch(f"/v1/agents/{one.ref('agent')}", json={"name": name})
    assert renamed.status_code == 200
    assert other.view() == before

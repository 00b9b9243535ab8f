"""The configurations of Loki and of Promtail, read as text, since neither can be had where the tests run."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import pytest
import yaml

from tests.support.manifests import ROOT


@pytest.fixture(scope="module")
def loki() -> Any:
    """With the defaults of its variables."""
    text = (ROOT / "deploy/components/loki/loki.yaml").read_text()
    return yaml.safe_load(re.sub(r"\$\{\w+:-(\w+)\}", r"\1", text))


def test_its_parts_look_for_each_other_where_grpc_listens(loki: Any) -> None:
    """`common.ring` alone says nothing to the frontend, which then gives the queriers the pod's own address."""
    assert ipaddress.ip_address(loki["server"]["grpc_listen_address"]).is_loopback
    assert loki["common"]["instance_addr"] == loki["server"]["grpc_listen_address"]
    assert "instance_addr" not in loki["common"]["ring"]


def test_lines_are_deleted_after_seven_days(loki: Any) -> None:
    limits, compactor = loki["limits_config"], loki["compactor"]
    assert limits["retention_period"] == limits["max_query_lookback"] == "168h"
    assert compactor["retention_enabled"] is True
    # Without it, Loki does not start where retention is on.
    assert compactor["delete_request_store"] == "filesystem"
    (schema,) = loki["schema_config"]["configs"]
    assert (schema["schema"], schema["store"], schema["object_store"]) == ("v13", "tsdb", "filesystem")
    assert schema["index"]["period"] == "24h"  # retention needs it


def test_promtail_keeps_what_the_log_collector_does() -> None:
    """Promtail's own file says what it leaves out."""
    promtail = yaml.safe_load((ROOT / "deploy/components/promtail/promtail.yaml").read_text())
    collector = yaml.safe_load((ROOT / "deploy/components/log-collector/config.yaml").read_text())
    (job,) = promtail["scrape_configs"]
    stages = {name: value for stage in job["pipeline_stages"] for name, value in stage.items()}
    kept = collector["receivers"]["file_log"]["operators"][-1]["fields"]
    labels = {*stages["labels"], "namespace"}
    assert labels == {field.removeprefix("resource.") for field in kept if field.startswith("resource.")}
    metadata = {*stages["structured_metadata"], "node", "stream"}
    assert metadata == {field.removeprefix("attributes.") for field in kept if field.startswith("attributes.")}

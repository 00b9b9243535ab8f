"""The exceptions as OpenVEX."""

from __future__ import annotations

from datetime import date

import pytest

from kgents.scan.exceptions import Acceptance
from kgents.scan.vex import document

NOW = 1_795_000_000_000_000


def accepted(status: str, justification: str = "") -> Acceptance:
    return Acceptance("osv", "CVE-1", "uv.lock: a *", "because", "platform", date(2027, 1, 1), status, justification)


@pytest.mark.parametrize(
    ("status", "justification", "needed"),
    [
        ("affected", "", {"action_statement": "because"}),
        ("not_affected", "", {"impact_statement": "because"}),
        (
            "not_affected",
            "component_not_present",
            {"impact_statement": "because", "justification": "component_not_present"},
        ),
    ],
)
def test_each_status_has_what_the_specification_asks_of_it(
    status: str, justification: str, needed: dict[str, str]
) -> None:
    [statement] = document([accepted(status, justification)], product="pkg:pypi/kgents@1", now=NOW)["statements"]

    assert statement["vulnerability"] == {"name": "CVE-1"}
    assert statement["products"] == [{"@id": "pkg:pypi/kgents@1"}]
    assert statement["status"] == status
    assert "until 2027-01-01" in statement["status_notes"]
    statements = {name: value for name, value in statement.items() if name.endswith("_statement")}
    assert {**statements, **{name: statement[name] for name in needed}} == needed


def test_a_document_is_known_by_what_it_says() -> None:
    one = document([accepted("affected")], product="pkg:pypi/kgents@1", now=NOW)
    later = document([accepted("affected")], product="pkg:pypi/kgents@1", now=NOW + 1)
    other = document([accepted("not_affected")], product="pkg:pypi/kgents@1", now=NOW)

    assert one["@context"] == "https://openvex.dev/ns/v0.2.0"
    assert one["@id"] == later["@id"] != other["@id"]
    assert one["timestamp"] == "2026-11-18T11:06:40.000000Z"

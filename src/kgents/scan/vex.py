"""The exceptions as OpenVEX, for who scans what we ship (https://github.com/openvex/spec, version 0.2.0)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from kgents.clock import to_rfc3339
from kgents.scan.exceptions import Acceptance


def document(accepted: Sequence[Acceptance], *, product: str, now: int) -> dict[str, Any]:
    """A statement for each exception, about `product` (a package URL), made at `now` (microseconds).

    An expired one is left out by the caller. The id tells two documents apart by what they say.
    """
    statements = [_statement(each, product) for each in accepted]
    said = json.dumps(statements, sort_keys=True).encode()
    return {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": f"urn:sha256:{hashlib.sha256(said).hexdigest()}",
        "author": "kgents",
        "timestamp": to_rfc3339(now),
        "version": 1,
        "statements": statements,
    }


def _statement(each: Acceptance, product: str) -> dict[str, Any]:
    statement: dict[str, Any] = {
        "vulnerability": {"name": each.rule},
        "products": [{"@id": product}],
        "status": each.status,
        "status_notes": f"{each.scanner} in {each.where}; accepted by {each.owner} until {each.until}",
    }
    if each.status == "affected":
        statement["action_statement"] = each.reason
    elif each.status == "not_affected":
        statement["impact_statement"] = each.reason
        if each.justification:
            statement["justification"] = each.justification
    else:
        statement["status_notes"] += f": {each.reason}"
    return statement

"""Bills of materials of a release: those of `kgents scan`, without what chance, clock or folder put into them."""

from __future__ import annotations

import json
import re
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kgents.clock import SECOND, to_datetime
from kgents.scan import bill
from kgents.scan.subject import Subject
from kgents.scan.toolbox import Broken, Toolbox
from release.source import Source

_SPACE = uuid.UUID("6f0c1a0e-54a3-5d0b-9a55-0d7a3b6f2c11")
_RANDOM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def write(tree: Path, layout: Path | None, out: Path, source: Source) -> list[Path]:
    """Write the package's bill, and the image's where there is its OCI layout; answers the files.

    Raises Broken where one can't be made, or lacks what is known to be in it.
    """
    with tempfile.TemporaryDirectory(prefix="kgents-bills-") as name:
        subject = Subject(tree, Path(name), Toolbox.usual(), source.epoch * SECOND, image=layout)
        found = bill.scan(subject)
        if found.findings:
            raise Broken("; ".join(finding.title for finding in found.findings), code="sbom")
        files = []
        for kind, suffix in (("package", ""), ("image", "-image"))[: 2 if layout else 1]:
            document = json.loads((subject.work / "sbom" / f"{kind}.cdx.json").read_text())
            target = out / f"kgents-{source.version}{suffix}.cdx.json"
            target.write_text(json.dumps(settled(document, source, kind), indent=2, sort_keys=True) + "\n")
            files.append(target)
    return files


def settled(document: dict[str, Any], source: Source, kind: str) -> dict[str, Any]:
    """A CycloneDX document that is the same whenever it is made of the same things.

    Its number and time are the commit's, an image's name is its tag, a random reference becomes one that its component
    gives, and lists without an order are sorted.
    """
    document = json.loads(json.dumps(document))
    described = document["metadata"]["component"]
    if kind == "image":
        described["name"] = f"kgents:{source.version}"
    references = dict(_references([described, *document["components"]]))
    document = json.loads(_RANDOM.sub(lambda found: references.get(found[0], found[0]), json.dumps(document)))
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(_SPACE, f'{source.commit}:{kind}')}"
    document["metadata"]["timestamp"] = to_datetime(source.epoch * SECOND).strftime("%Y-%m-%dT%H:%M:%SZ")
    document["components"].sort(key=lambda each: str(each["bom-ref"]))
    for each in document["dependencies"]:
        each.get("dependsOn", []).sort()
    document["dependencies"].sort(key=lambda each: str(each["ref"]))
    return document


def _references(components: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """For each random reference, one of what its component says of itself."""
    for each in components:
        reference = str(each["bom-ref"])
        if _RANDOM.fullmatch(reference):
            itself = {name: value for name, value in each.items() if name != "bom-ref"}
            yield reference, str(uuid.uuid5(_SPACE, json.dumps(itself, sort_keys=True)))

"""What a release was made of, and how: an in-toto statement with SLSA's provenance. It is not signed."""

from __future__ import annotations

import platform
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from kgents.clock import SECOND, to_datetime
from release.model import Built, Material
from release.source import LOCAL, Source

FILE = "provenance.json"
SUMS = "SHA256SUMS"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:kgents:release:1"
BUILDER = "urn:kgents:release:builder:local"


def statement(source: Source, built: Built, tools: Mapping[str, str], started: int, finished: int) -> dict[str, Any]:
    """The statement about a release's files. `started` and `finished` are microseconds since the epoch.

    docs/operations/release.md says what the parameters of its build type mean.
    """
    of = source.repository
    commit = Material("source", source.commit, "gitCommit", f"git+{of}@{source.ref}" if of != LOCAL else "")
    bases = built.image.bases if built.image else ()
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": value}} for name, value in built.subjects.items()],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "repository": source.repository,
                    "ref": source.ref,
                    "commit": source.commit,
                    "version": source.version,
                    "image": "built" if built.image else "left out",
                },
                "internalParameters": {"SOURCE_DATE_EPOCH": str(source.epoch), **surroundings()},
                "resolvedDependencies": _described([commit, *built.materials, *bases]),
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": dict(tools)},
                "metadata": {
                    "invocationId": f"urn:uuid:{uuid.uuid4()}",
                    "startedOn": _second(started),
                    "finishedOn": _second(finished),
                },
            },
        },
    }


def surroundings() -> dict[str, str]:
    """What of this machine counts for a bill of the package: which packages it needs there."""
    return {
        "platform": f"{platform.system().lower()}/{platform.machine()}",
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def _described(materials: Sequence[Material]) -> list[dict[str, Any]]:
    return [
        {"name": each.name, **({"uri": each.uri} if each.uri else {}), "digest": {each.algorithm: each.digest}}
        for each in materials
    ]


def _second(micros: int) -> str:
    return to_datetime(micros // SECOND * SECOND).strftime("%Y-%m-%dT%H:%M:%SZ")

"""The manifests as kustomize renders them."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import build

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted(path.name for path in (ROOT / "deploy" / "overlays").iterdir())


def rendered(overlay: str) -> list[dict[str, Any]]:
    """The objects of an overlay of the project."""
    return objects_of(ROOT / "deploy" / "overlays" / overlay)


def objects_of(folder: Path) -> list[dict[str, Any]]:
    """The objects of a kustomization."""
    return [document for document in yaml.safe_load_all(_text(folder)) if document]


def pod_of(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """The specification of the pods that an object makes, where it makes any; claimed volumes are empty ones in it."""
    spec = found.get("spec", {})
    if found["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    if "template" not in spec:
        return None
    pod: dict[str, Any] = spec["template"]["spec"]
    claims = [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", ())]
    volumes = [*pod.get("volumes", ()), *({"name": name, "emptyDir": {}} for name in claims)]
    return {**pod, "volumes": volumes}


def containers_of(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The containers of those pods."""
    pod = pod_of(found) or {}
    return [*pod.get("initContainers", ()), *pod.get("containers", ())]


def kubectl() -> Path:
    """kubectl: the machine's, or the one of the tests' cluster. Skips the test where there is neither."""
    program = shutil.which("kubectl")
    if program is None and shutil.which("go") is None:
        pytest.skip("there is no kubectl, and no Go to build one")
    return Path(program) if program else build.build("kubectl") / "kubectl"


@functools.cache
def _text(folder: Path) -> str:
    command = [str(kubectl()), "kustomize", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

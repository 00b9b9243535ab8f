"""What the pods of a namespace take, from metrics-server, through kubectl, which has the user's credentials."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kgents.errors import Unprocessable
from kgents.load.resources import Use

SELECTOR = "app.kubernetes.io/name in (kgents,kgents-nats)"
_CPU = {"n": 1e-9, "u": 1e-6, "m": 1e-3}
_MEMORY = {"Ki": 1 / 1024, "Mi": 1.0, "Gi": 1024.0}


@dataclass(slots=True)
class Pods:
    """The pods of kgents in a namespace of kubectl's current context, or of another.

    metrics-server tells how much CPU a pod used lately, not how much in all: that is summed up over the looks, so
    averages are right within its resolution (15 s), and peaks shorter than that are not seen.
    """

    namespace: str
    kubectl: Sequence[str] = ("kubectl",)
    every: float = 5.0
    _spent: dict[str, tuple[float, float]] = field(default_factory=dict)

    def look(self) -> dict[str, Use]:
        """Each pod by its name. Raises Unprocessable when kubectl or the cluster refuses."""
        pods = self._get("get", "pods", f"--namespace={self.namespace}", f"--selector={SELECTOR}", "--output=json")
        identities = {pod["metadata"]["name"]: _identity(pod) for pod in pods["items"] if _runs(pod)}
        path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{self.namespace}/pods"
        used = {pod["metadata"]["name"]: pod["containers"] for pod in self._get("get", f"--raw={path}")["items"]}
        now, found = time.monotonic(), {}
        for name, identity in identities.items():
            containers = used.get(name, [])
            cores = sum(_quantity(each["usage"]["cpu"], _CPU) for each in containers)
            memory = sum(_quantity(each["usage"]["memory"], _MEMORY) for each in containers)
            since, spent = self._spent.get(name, (now, 0.0))
            self._spent[name] = now, spent + cores * (now - since)
            found[name] = Use(identity, self._spent[name][1], memory)
        return found

    def _get(self, *arguments: str) -> dict[str, Any]:
        command = [*self.kubectl, *arguments]
        try:
            done = subprocess.run(  # noqa: S603 - no shell; the arguments are ours, and a name
                command, capture_output=True, text=True, errors="replace", timeout=30, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unprocessable(
                f"kubectl could not be run: {error}. Leave --pods out, or install it.", code="kubectl"
            ) from None
        if done.returncode:
            raise Unprocessable(f"kubectl says of the pods: {done.stderr.strip()[-300:]}", code="kubectl")
        try:
            found: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise Unprocessable("What kubectl printed of the pods is no JSON.", code="kubectl") from None
        return found


def _runs(pod: Mapping[str, Any]) -> bool:
    return str(pod["status"].get("phase")) == "Running"


def _identity(pod: Mapping[str, Any]) -> str:
    containers = pod["status"].get("containerStatuses", [])
    restarts = sum(each["restartCount"] for each in containers)
    images = ", ".join(sorted({each["imageID"].rpartition("@")[2] for each in containers}))
    return f"pod {pod['metadata']['uid']}, {restarts} restarts, image {images}"


def _quantity(text: str, units: Mapping[str, float]) -> float:
    for unit, worth in units.items():
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * worth
    return float(text) / (1 if units is _CPU else 1024**2)

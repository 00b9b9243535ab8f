"""The metrics of a kgents in a cluster, and its health, through the API server."""

from __future__ import annotations

import json
from typing import Any

from kgents.deploy.kubectl import Kubectl, Refused
from kgents.deploy.pod_logs import pods_of

PORT = 9464


class PodMetrics:
    """What the API's and the workers' pods expose."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self._kubectl = kubectl
        self._namespace = namespace

    def pages(self) -> dict[str, str]:
        """The metrics of each pod that is there to be asked, by its name. Raises Refused where there are none or
        the cluster does not answer.
        """
        pods = pods_of(self._kubectl, self._namespace)
        found: dict[str, str] = {}
        for name in (pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") == "Running"):
            try:
                found[name] = self._kubectl.raw(f"{self._path}/pods/{name}:{PORT}/proxy/metrics")
            except Refused:
                continue  # it starts or ends at this moment
        return found

    def health(self) -> dict[str, Any]:
        """The health page; an empty one where there is none, or not one that says that requests can be served."""
        try:
            found: dict[str, Any] = json.loads(
                self._kubectl.raw(f"{self._path}/services/kgents-api:http/proxy/health/saas")
            )
        except (Refused, ValueError):
            return {}
        return found

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}"

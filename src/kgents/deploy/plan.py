"""What an overlay brings into a cluster: its objects by when they are applied, and the namespaces that they are in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kgents.deploy.findings import name_of
from kgents.errors import Unprocessable

Objects = list[dict[str, Any]]

_FIRST = ("StatefulSet",)
_LAST = ("Deployment", "DaemonSet", "HorizontalPodAutoscaler", "CronJob")
UNSET = "@sha256:" + 64 * "0"
"""The digest of an image that an overlay leaves to who takes it over."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an overlay holds, in the order in which it is applied."""

    namespace: str
    """Where the API is, and where is kept what was deployed."""
    settings: Objects  # all that runs nothing
    stores: Objects
    jobs: Objects
    services: Objects

    @classmethod
    def of(cls, objects: Objects) -> Plan:
        """Sort an overlay's objects. Raises Unprocessable where it is not clear which namespace is the API's, or an
        image is not set.
        """
        namespace = _namespace(objects)
        parts: dict[str, Objects] = {"settings": [], "stores": [], "jobs": [], "services": []}
        for each in objects:
            kind = each["kind"]
            part = "stores" if kind in _FIRST else "jobs" if kind == "Job" else "services" if kind in _LAST else ""
            parts[part or "settings"].append(each)
        images = {image for each in objects for image in _images(each)}
        if unset := sorted(image.removesuffix(UNSET) for image in images if image.endswith(UNSET)):
            raise Unprocessable(
                f"The overlay does not say yet which image to take for {', '.join(unset)}. Set it by its digest, in "
                "the overlay's folder: kustomize edit set image NAME=REGISTRY/NAME@sha256:DIGEST",
                code="overlay-image",
            )
        return cls(namespace, **parts)

    @property
    def least(self) -> dict[str, int]:
        """How many replicas autoscalers see to, by workload, such as `deployment/kgents-api`."""
        return least_of(each for each in self.services if each["kind"] == "HorizontalPodAutoscaler")

    @property
    def everything(self) -> Objects:
        """All objects, in order."""
        return [*self.settings, *self.stores, *self.jobs, *self.services]


def least_of(autoscalers: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many replicas autoscalers see to, by workload, such as `deployment/kgents-api`."""
    targets = [(each["spec"]["scaleTargetRef"], each["spec"].get("minReplicas", 1)) for each in autoscalers]
    return {f"{target['kind'].lower()}/{target['name']}": least for target, least in targets}


def space_of(found: Mapping[str, Any]) -> str:
    """The namespace of an object; empty for one that is in none."""
    return str(found["metadata"].get("namespace", ""))


def _namespace(objects: Objects) -> str:
    """The API's namespace. Others may be there beside it where the overlay itself makes them."""
    spaces = {space for each in objects if (space := space_of(each))}
    made = {each["metadata"]["name"] for each in objects if each["kind"] == "Namespace"}
    if len(spaces) > 1 and spaces <= made:
        spaces = {space_of(each) for each in objects if name_of(each) == "service/kgents-api"}
    if len(spaces) != 1:
        raise Unprocessable(
            f"The overlay's objects are in {', '.join(sorted(spaces)) or 'no namespace'}; a deployment has one, and "
            "beside it those that the overlay makes.",
            code="overlay",
        )
    return spaces.pop()


def _images(found: dict[str, Any]) -> list[str]:
    spec = found.get("spec") or {}
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    pod = (spec.get("template") or {}).get("spec") or {}
    return [each["image"] for each in (*pod.get("initContainers", ()), *pod.get("containers", ()))]

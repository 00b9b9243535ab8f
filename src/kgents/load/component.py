"""The kustomize component that brings a capacity's numbers into the manifests, and whether they are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kgents.load import capacity
from kgents.load.sizing import Proposal

_TEXT = """# Written by `kgents capacity write` from evidence/capacity.json, which has the reasons; never edit it by
# hand. It comes after the component autoscaling.
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
patches:
  - target:
      kind: Deployment
      name: kgents-api
    patch: |
      - op: replace
        path: /spec/template/spec/containers/0/resources
        value:
          requests:
            cpu: {api_cpu}m
            memory: {api_memory}Mi
          limits:
            memory: {api_memory_limit}Mi
  - target:
      kind: Deployment
      name: kgents-worker
    patch: |
      - op: replace
        path: /spec/replicas
        value: {worker_replicas}
      - op: replace
        path: /spec/template/spec/containers/0/resources
        value:
          requests:
            cpu: {worker_cpu}m
            memory: {worker_memory}Mi
          limits:
            memory: {worker_memory_limit}Mi
  - target:
      kind: HorizontalPodAutoscaler
      name: kgents-api
    patch: |
      - op: replace
        path: /spec/minReplicas
        value: {least}
      - op: replace
        path: /spec/maxReplicas
        value: {most}
      - op: replace
        path: /spec/metrics/0/resource/target/averageUtilization
        value: {utilization}
"""


def text(proposal: Proposal) -> str:
    """The component's kustomization.yaml."""
    return _TEXT.format(**asdict(proposal))


def write(proposal: Proposal, folder: Path) -> Path:
    """Write the component into its folder, such as deploy/components/capacity."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "kustomization.yaml"
    path.write_text(text(proposal))
    return path


def drift(document: Mapping[str, Any], folder: Path) -> list[str]:
    """How a component differs from what the measurements of a capacity.json say; empty where it does not."""
    wanted = capacity.proposal(document)
    found = []
    if asdict(wanted) != document["proposal"]:
        found.append("the proposal in the evidence does not follow from the measurements in it")
    path = folder / "kustomization.yaml"
    if not path.exists():
        found.append(f"{path} is not there")
    elif path.read_text() != text(wanted):
        found.append(f"{path} is not what the evidence says")
    return found


def differences(proposal: Proposal, objects: Iterable[Mapping[str, Any]]) -> list[str]:
    """How rendered manifests differ from a proposal: each number that is another one, or not there."""
    by_name = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    return [
        f"{kind} {name}: {'.'.join(map(str, path))} is {seen}, not {value}"
        for kind, name, path, value in _numbers(proposal)
        if (seen := at(by_name.get((kind, name)), path)) != value
    ]


def _numbers(proposal: Proposal) -> list[tuple[str, str, Sequence[str | int], object]]:
    resources = ("spec", "template", "spec", "containers", 0, "resources")
    api, worker, scaler = ("Deployment", "kgents-api"), ("Deployment", "kgents-worker"), "HorizontalPodAutoscaler"
    target = ("spec", "metrics", 0, "resource", "target", "averageUtilization")
    return [
        (*api, (*resources, "requests", "cpu"), f"{proposal.api_cpu}m"),
        (*api, (*resources, "requests", "memory"), f"{proposal.api_memory}Mi"),
        (*api, (*resources, "limits"), {"memory": f"{proposal.api_memory_limit}Mi"}),
        (*worker, (*resources, "requests", "cpu"), f"{proposal.worker_cpu}m"),
        (*worker, (*resources, "requests", "memory"), f"{proposal.worker_memory}Mi"),
        (*worker, (*resources, "limits"), {"memory": f"{proposal.worker_memory_limit}Mi"}),
        (*worker, ("spec", "replicas"), proposal.worker_replicas),
        (scaler, "kgents-api", ("spec", "minReplicas"), proposal.least),
        (scaler, "kgents-api", ("spec", "maxReplicas"), proposal.most),
        (scaler, "kgents-api", target, proposal.utilization),
    ]


def at(value: Any, path: Sequence[str | int]) -> Any:
    """What is at a place in an object; None where there is no such place."""
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value

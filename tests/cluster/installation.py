"""A kgents in a cluster: its secrets, its deployment by `kgents deploy`, and how it is reached."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx2

from tests.support.documents import blocks, typed
from tests.support.reached import Reached, trust

ROOT = Path(__file__).parents[2]
NAMESPACE = "kgents-agents"
_NAMES = {
    "kgents": "kgents",
    "nats": "docker.io/library/nats",
    "postgres": "docker.io/library/postgres",
    "log-collector": "docker.io/otel/opentelemetry-collector-k8s",
}
"""What the images are called in the overlay."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that may be deployed to, and broken."""

    kubeconfig: Path
    kubectl_program: Path

    @property
    def environment(self) -> dict[str, str]:
        """What commands that talk to the cluster need."""
        path = f"{self.kubectl_program.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path}

    def named(self, name: str, path: Path) -> Path:
        """Write its kubeconfig there once more, with this name for its context."""
        path.write_bytes(self.kubeconfig.read_bytes())
        mine = f"--kubeconfig={path}"
        self.kubectl("config", "rename-context", self.kubectl("config", "current-context").strip(), name, mine)
        return path

    def kubectl(self, *arguments: str, given: str | None = None, seconds: float = 120) -> str:
        """What kubectl says. Raises RuntimeError with what it complained about."""
        done = subprocess.run(
            ["kubectl", *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=self.environment,
        )
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout

    def get(self, kind: str, name: str = "", namespace: str = NAMESPACE) -> Any:
        """An object, or all of a kind."""
        return json.loads(self.kubectl("get", kind, *([name] if name else []), f"-n{namespace}", "--output=json"))

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Apply objects."""
        self.kubectl("apply", "--filename=-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def kgents(self, *arguments: str, seconds: float = 900, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a kgents command against the cluster."""
        return subprocess.run(
            [sys.executable, "-m", "kgents.cli.main", *arguments],
            capture_output=True,
            text=True,
            timeout=seconds,
            env={**self.environment, **environment},
            cwd=ROOT,
        )


def parts(image: str) -> dict[str, str]:
    """An image as kustomize takes it: REPOSITORY@DIGEST or REPOSITORY:TAG."""
    if "@" in image:
        name, _, digest = image.partition("@")
        return {"newName": name, "digest": digest}
    name, _, tag = image.rpartition(":")
    return {"newName": name, "newTag": tag}


def _target(change: Mapping[str, Any]) -> dict[str, str]:
    """What a patch is for, as kustomize selects it; there may be none."""
    return {"kind": change["kind"], "name": change["metadata"]["name"]}


class Installation(Reached):
    """The conformance overlay in a cluster, with these patches of what is there of it."""

    def __init__(
        self,
        cluster: Cluster,
        images: Mapping[str, str],
        changes: Sequence[Mapping[str, Any]] = (),
        *,
        namespace: str = NAMESPACE,
    ) -> None:
        self.cluster = cluster
        self.images = images
        self.namespace = namespace
        self._changes = changes
        self._admin_key = ""

    def is_there(self) -> bool:
        """Whether its secrets were made already: a database keeps its passwords."""
        where = f"-n{self.namespace}"
        return bool(self.cluster.kubectl("get", "secret", "kgents-api-secrets", where, "--ignore-not-found").strip())

    def secret(self, name: str, key: str) -> str:
        """A value of one of its secrets."""
        return base64.b64decode(self.cluster.get("secret", name, self.namespace)["data"][key]).decode()

    def follow(self, document: str, section: str, **environment: str) -> str:
        """Type the blocks of a section of a document, with this overlay for its own; answers what they printed. Raises
        RuntimeError with what the first that failed complained about.
        """
        said = ""
        for block in blocks(document, "sh", section):
            done = self.typed(block, **environment)
            if done.returncode:
                raise RuntimeError(f"{block}\n{done.stdout}{done.stderr}")
            said += done.stdout + done.stderr
        return said

    def typed(self, block: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Type one block."""
        ours = block.replace("deploy/overlays/kind", str(self.overlay()))
        return typed(ours, self.cluster.environment | environment, ROOT, seconds=900)

    def overlay(
        self, *changes: Mapping[str, Any], components: Sequence[str] = (), objects: Sequence[Mapping[str, Any]] = ()
    ) -> Path:
        """The overlay with the images by digest, and with these strategic merge patches, components and objects."""
        folder = Path(tempfile.mkdtemp(prefix="overlay-", dir=self._folder))
        (folder / "objects.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        images = [{"name": _NAMES[name], **parts(image)} for name, image in self.images.items()]
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [
                os.path.relpath(ROOT / "deploy" / "overlays" / "conformance", folder),
                *(["objects.json"] if objects else []),
            ],
            "components": [os.path.relpath(ROOT / "deploy" / "components" / name, folder) for name in components],
            "transformers": [(ROOT / "deploy" / "overlays" / "conformance" / "namespace.yaml").read_text()],
            "images": images,
            "patches": [
                *({"patch": json.dumps(change), "target": _target(change)} for change in self._changes),
                *({"patch": json.dumps(change)} for change in changes),
            ],
        }
        (folder / "kustomization.yaml").write_text(json.dumps(kustomization))
        return folder

    def deploy(
        self,
        *changes: Mapping[str, Any],
        components: Sequence[str] = (),
        objects: Sequence[Mapping[str, Any]] = (),
        seconds: int = 180,
    ) -> subprocess.CompletedProcess[str]:
        """`kgents deploy` of the overlay with these changes; answers how that ended."""
        overlay = self.overlay(*changes, components=components, objects=objects)
        return self.cluster.kgents("deploy", f"--overlay={overlay}", f"--timeout={seconds}")

    @cached_property
    def _folder(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="kgents-overlays-"))

    @cached_property
    def url(self) -> str:  # type: ignore[override] # found once
        """Where the API's Service is reached from here: its address, to which this machine has a route."""
        return os.environ.get("KGENTS_TEST_URL") or f"http://{self.address('kgents-api')}"

    @property
    def admin_key(self) -> str:
        if not self._admin_key:
            command = ["exec", f"-n{self.namespace}", "deployment/kgents-api", "--", "/opt/kgents/bin/kgents"]
            self._admin_key = json.loads(self.cluster.kubectl(*command, "key", "bootstrap", "--output=json"))["token"]
        return self._admin_key

    def meter(self) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.secret('kgents-meter-secrets', 'KGENTS_METER_TOKEN')}"}
        url = f"http://{self.address('kgents-meter')}:8888"
        return httpx2.Client(base_url=url, headers=headers, trust_env=False, timeout=30, verify=trust())

    def metrics(self) -> list[str]:
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        return [self.cluster.kubectl("get", f"--raw={path}/{pod}:9464/proxy/metrics") for pod in self.pods("kgents")]

    def logs(self) -> str:
        where = f"-n{self.namespace}"
        return "".join(self.cluster.kubectl("logs", where, pod, "--tail=-1") for pod in self.pods("kgents"))

    def pods(self, name: str, component: str = "") -> list[str]:
        """The names of the pods of a part of it that run, and are to go on."""
        return [pod["name"] for pod in self.running(name, component)]

    def running(self, name: str, component: str = "") -> list[dict[str, Any]]:
        """The metadata of these pods."""
        labels = f"app.kubernetes.io/name={name}" + (f",app.kubernetes.io/component={component}" if component else "")
        found = self.cluster.kubectl(
            *("get", "pods", f"-n{self.namespace}", f"--selector={labels}", "--field-selector=status.phase=Running"),
            "--output=json",
        )
        pods = [each["metadata"] for each in json.loads(found)["items"]]
        return [pod for pod in pods if "deletionTimestamp" not in pod]

    def address(self, service: str) -> str:
        """A Service's own address."""
        return str(self.cluster.get("service", service, self.namespace)["spec"]["clusterIP"])

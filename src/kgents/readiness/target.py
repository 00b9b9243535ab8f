"""What is looked at: an installation by its cluster and addresses, and the checkout that holds its evidence."""

from __future__ import annotations

import re
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from kgents.clock import Clock
from kgents.deploy.health import WayIn, way_in
from kgents.deploy.kubectl import Kubectl, Refused
from kgents.errors import Unavailable, Unprocessable
from kgents.readiness.checkout import git
from kgents.readiness.model import Broken, NotShown
from kgents.tls import trusted

_COMMIT = re.compile("[0-9a-f]{7,64}")
PATIENCE = 10.0  # seconds for an answer
NOTHING = "nothing"
"""The name of an installation that can't be told from others."""
FORWARD = 15.0  # seconds for kubectl to open a port


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant that a run of checks made for itself, with its owner's key and an agent `echo`."""

    id: str
    key: str = field(repr=False)


@dataclass
class Target(AbstractContextManager["Target"]):
    """An installation. Every address may be empty: what needs it is then not shown, and so says its check.

    `project` is the checkout with `deploy`, `docs` and `evidence`, `check_pepper` raises ValueError for a pepper that
    can't be used, and `run` names this run of checks. `left_behind` says why a tenant of the run could not be deleted.
    """

    clock: Clock
    project: Path
    check_pepper: Callable[[str], object]
    context: str = ""
    namespace: str = "kgents-agents"
    url: str = ""
    admin_key: str = field(default="", repr=False)
    grafana: str = ""
    grafana_token: str = field(default="", repr=False)
    loki: str = ""
    prometheus: str = ""
    meter: str = ""
    meter_token: str = field(default="", repr=False)
    disrupt: bool = False
    run: str = field(default_factory=lambda: secrets.token_hex(4))
    left_behind: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._open = ExitStack()
        self._lock = threading.RLock()
        self._tenants: dict[str, Tenant] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @cached_property
    def name(self) -> str:
        """What tells this installation from others in the ledger: its cluster and namespace, or its address."""
        for namespace in ("kube-system", self.namespace):  # not everybody may see the first
            with suppress(NotShown, Refused, KeyError):
                uid = (self.kubectl.get("namespace", "default", namespace) or {})["metadata"]["uid"]
                return f"{uid}/{self.namespace}"
        return self.url or NOTHING

    @cached_property
    def commit(self) -> str:
        """The commit of the checkout, or nothing outside of one."""
        return git(self.project, "rev-parse", "HEAD") or ""

    def changed_since(self, commit: str) -> list[str] | None:
        """The files of the checkout's commit that differ from those of one that it comes from; None for any other."""
        if not _COMMIT.fullmatch(commit) or git(self.project, "merge-base", "--is-ancestor", commit, "HEAD") is None:
            return None
        changed = git(self.project, "diff", "--name-only", "--no-renames", "-z", "--relative", commit, "HEAD")
        return None if changed is None else [name for name in changed.split("\0") if name]

    @cached_property
    def kubectl(self) -> Kubectl:
        """The cluster. Raises NotShown where there is none to ask."""
        found = Kubectl(self.context)
        try:
            found.raw("/version")
        except (Unprocessable, Unavailable) as error:  # also where there is no kubectl
            raise NotShown(f"There is no cluster to ask: {error.detail}") from None
        return found

    def object(self, kind: str, name: str) -> dict[str, Any]:
        """An object of the installation. Raises Broken where it is not there."""
        found = self.kubectl.get(kind, self.namespace, name)
        if found is None:
            raise Broken(f"There is no {kind}/{name} in {self.namespace}.", {"missing": f"{kind}/{name}"})
        return found

    @cached_property
    def images(self) -> list[str]:
        """The images of the API, as its Deployment names them. Raises NotShown or Broken where there is none to ask."""
        pod = self.object("deployment", "kgents-api")["spec"]["template"]["spec"]
        return sorted(each["image"] for each in [*pod.get("initContainers", ()), *pod["containers"]])

    @cached_property
    def entrance(self) -> WayIn:
        """Where the gateway is reached. Raises NotShown where the installation has none, or it has no address."""
        kinds = ("gateway.gateway.networking.k8s.io", "ingress")
        for kind in kinds:
            try:
                found = self.kubectl.list(kind, self.namespace)
            except Refused:
                continue  # a cluster without Gateway API has no such kind
            for each in found:
                try:
                    return way_in(self.kubectl, self.namespace, each)
                except Unavailable as error:
                    raise NotShown(error.detail) from None
        raise NotShown(f"There is no Gateway and no Ingress in {self.namespace}.")

    @cached_property
    def base(self) -> str:
        """Where the API answers: the given address, or a port that kubectl forwards to the Service."""
        with self._lock:
            return self.url.rstrip("/") or self._open.enter_context(self._forwarded("service/kgents-api", 80))

    @cached_property
    def meter_base(self) -> str:
        """Where the meter answers: the given address, or that of the meter that comes with kgents."""
        with self._lock:
            if self.meter:
                return self.meter.rstrip("/")
            if self.kubectl.get("service", self.namespace, "kgents-meter") is None:
                raise NotShown("The meter's address is not known: say --meter and KGENTS_METER_TOKEN.")
            return self._open.enter_context(self._forwarded("service/kgents-meter", 8888))

    @contextmanager
    def _forwarded(self, what: str, port: int) -> Iterator[str]:
        """The address of a port on this machine that kubectl forwards; kubectl ends with it."""
        kubectl = self.kubectl
        with socket.create_server(("127.0.0.1", 0)) as free:
            local = free.getsockname()[1]
        context = [f"--context={kubectl.context}"] if kubectl.context else []
        command = [shutil.which(kubectl.program) or kubectl.program, *context, f"--namespace={self.namespace}"]
        process = subprocess.Popen(  # noqa: S603 - no shell; the arguments are ours
            [*command, "port-forward", what, f"{local}:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + FORWARD
            while not _answers(local):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise NotShown(f"kubectl can't forward a port to {what}.")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{local}"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    def http(self, key: str = "") -> httpx2.Client:
        """A client of the API."""
        return client(self.base, key)

    def tenant(self, name: str = "first") -> Tenant:
        """The tenant of this run that has a name; deleted when the run ends. Raises NotShown without a platform
        administrator's key.
        """
        with self._lock:
            if name not in self._tenants:
                self._tenants[name] = self._open.enter_context(self._made(name))
            return self._tenants[name]

    @contextmanager
    def _made(self, name: str) -> Iterator[Tenant]:
        if not self.admin_key:
            raise NotShown("A platform administrator's key is needed: set KGENTS_ADMIN_KEY.")
        with self.http(self.admin_key) as admin:
            made = answer(admin, "POST", "/v1/tenants", {"name": f"ready-{self.run}-{name}"})
            path = f"/v1/tenants/{made['id']}"
            try:
                key = answer(admin, "POST", f"{path}/api-keys", {"name": "ready", "role": "owner"})["token"]
                with self.http(key) as http:
                    answer(http, "POST", "/v1/agents", {"name": "echo", "model": "kgents:echo"})
                yield Tenant(made["id"], key)
            finally:
                try:
                    answer(admin, "PATCH", path, {"status": "deleted"})
                except NotShown as error:  # what the checks came to stands all the same
                    self.left_behind.append(f"{made['id']} ({error.detail})")


def client(base: str, key: str = "") -> httpx2.Client:
    """A client of an address that is one's own: no proxy, no redirects; SSL_CERT_FILE may name its authority."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx2.Client(base_url=base, headers=headers, timeout=PATIENCE, trust_env=False, verify=trusted())


def answer(http: httpx2.Client, method: str, path: str, body: Any = None, **options: Any) -> Any:
    """The JSON of an answer. Raises NotShown where there is none, or one that is no success."""
    more = {"json": body} if body is not None else {}
    try:
        found = http.request(method, path, **more, **options)
        if not found.is_success:
            raise NotShown(f"{method} {http.base_url.join(path)} answers {found.status_code}: {found.text[:200]}")
        return found.json()
    except httpx2.HTTPError as error:
        raise NotShown(f"{http.base_url} can't be reached: {error or type(error).__name__}.") from None
    except ValueError:
        raise NotShown(f"What {http.base_url.join(path)} answers is no JSON.") from None


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False

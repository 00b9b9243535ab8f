"""The cluster, through kubectl: it has the user's contexts and credentials, and kustomize."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kgents.errors import Unprocessable

Object = Mapping[str, Any]
Listed = list[dict[str, Any]]
TRIES, PAUSE = 5, 0.5  # seconds between tries for a container's log, which is away while the container is replaced
_INSTALL = "https://kubernetes.io/docs/tasks/tools/"
_GONE = "unable to retrieve container logs"
_NOISE = re.compile(r"^[EIW]\d{4} .*\n", re.MULTILINE)  # what kubectl's library logs, beside what it answers
MANAGER = "kgents"
"""The field manager of server-side apply (https://kubernetes.io/docs/reference/using-api/server-side-apply/)."""


class Refused(Unprocessable):
    """kubectl, or the cluster, refused; the detail is what it said."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl with a context (the current one where it is empty). Its methods raise Refused."""

    context: str = ""
    program: str = "kubectl"

    def render(self, overlay: Path) -> list[dict[str, Any]]:
        """The objects of an overlay."""
        return _documents(self._run("kustomize", str(overlay), cluster=False))

    def apply(self, objects: Sequence[Object], *, dry_run: bool = False) -> None:
        """Apply objects as ours; with `dry_run` only have the cluster check them."""
        self._run(*_apply(MANAGER), *(["--dry-run=server"] if dry_run else []), given=_list(objects))

    def hold(self, part: Object, manager: str) -> None:
        """Have another manager hold, too, what `part` has of an object that is there."""
        self._run(*_apply(manager), "--validate=false", given=json.dumps(part))  # on its own it is not whole

    def diff(self, objects: Sequence[Object]) -> str:
        """What applying them would change, as a unified diff; empty where nothing would."""
        return self._run(
            *("diff", "--server-side", "--force-conflicts", f"--field-manager={MANAGER}", "--filename=-"),
            given=_list(objects),
            fine=(0, 1),
        )

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """One object, if there is one, with who manages which field."""
        which = (kind, name, f"--namespace={namespace}", "--ignore-not-found", "--show-managed-fields")
        text = self._run("get", *which, "--output=json")
        return _object(text) if text.strip() else None

    def list(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """The objects of a kind."""
        more = [f"--selector={selector}"] if selector else []
        return _items(self._run("get", kind, f"--namespace={namespace}", "--output=json", *more))

    def everywhere(self, kind: str) -> Listed:
        """The objects of a kind in all namespaces."""
        return _items(self._run("get", kind, "--all-namespaces", "--output=json"))

    def execute(self, namespace: str, where: str, command: Sequence[str]) -> Any:
        """The JSON that a command prints in a pod of `where`, such as `deployment/kgents-worker`."""
        text = self._run("exec", f"--namespace={namespace}", where, "--", *command, fine=(0, 1))
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            raise Refused(f"`{' '.join(command)}` in {where} printed no JSON.", code="cluster") from None

    def restart(self, namespace: str, where: str) -> None:
        """Replace the pods of a workload one after another, and wait until that is done (two minutes at most)."""
        self._run("rollout", "restart", where, f"--namespace={namespace}")
        self._run("rollout", "status", where, f"--namespace={namespace}", "--timeout=110s")

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object and what belongs to it, and wait until it is gone."""
        self._run(
            "delete", kind, name, f"--namespace={namespace}", "--ignore-not-found", "--cascade=foreground", "--wait"
        )

    def last_words(self, namespace: str, pod: str, container: str) -> str:
        """The end of what a container wrote, before its restart where it was restarted; empty without anything."""
        arguments = ["logs", pod, f"--container={container}", f"--namespace={namespace}", "--tail=5"]
        for more in (["--previous"], []) * TRIES:
            try:
                said = self._run(*arguments, *more, errors="replace").strip()
            except Refused:
                continue
            if said and not said.startswith(_GONE):
                return said
            time.sleep(PAUSE)
        return ""

    def logs(self, namespace: str, pod: str, *which: str) -> str:
        """What a pod's container has logged; `which` are kubectl's options."""
        return self._run("logs", pod, f"--namespace={namespace}", *which, errors="replace")

    def follow_logs(self, namespace: str, pod: str, *which: str) -> subprocess.Popen[str]:
        """A kubectl that goes on to print what a pod's container logs, until it is terminated or the container ends."""
        command = self._command("logs", pod, f"--namespace={namespace}", "--follow", *which)
        return subprocess.Popen(  # noqa: S603 - no shell; the arguments are ours, paths and names
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
        )

    def raw(self, path: str) -> str:
        """What the API server answers to a GET of this path."""
        return self._run("get", f"--raw={path}")

    def _run(
        self,
        *arguments: str,
        given: str | None = None,
        fine: Sequence[int] = (0,),
        cluster: bool = True,
        errors: str = "strict",
    ) -> str:
        """What kubectl prints. `errors` is for bytes that are no text: they may be lost only where people read it."""
        command = self._command(*arguments, cluster=cluster)
        try:
            done = subprocess.run(  # noqa: S603 - no shell; the arguments are ours, paths and names
                command, input=None if given is None else given.encode(), capture_output=True, timeout=120
            )
        except OSError as error:
            raise Refused(
                f"{command[0]} can't be run: {error.strerror}. Install kubectl anew: {_INSTALL}", code="no-kubectl"
            ) from None
        except subprocess.TimeoutExpired:
            raise Refused(f"`kubectl {arguments[0]}` did not end within two minutes.", code="cluster") from None
        if done.returncode not in fine:
            stdout, stderr = (each.decode(errors="replace").strip() for each in (done.stdout, done.stderr))
            raise Refused(_NOISE.sub("", stderr + "\n").strip() or stderr or stdout or "kubectl failed", code="cluster")
        try:
            return done.stdout.decode(errors=errors)
        except UnicodeDecodeError:
            raise _strange("it is not UTF-8 text") from None

    def _command(self, *arguments: str, cluster: bool = True) -> Sequence[str]:
        program = shutil.which(self.program)
        if program is None:
            raise Unprocessable(
                f"There is no kubectl on the PATH. Install it: {_INSTALL}",
                code="no-kubectl",
            )
        return [program, *([f"--context={self.context}"] if self.context and cluster else []), *arguments]


def _apply(manager: str) -> Sequence[str]:
    return "apply", "--server-side", "--force-conflicts", f"--field-manager={manager}", "--filename=-"


def _list(objects: Sequence[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def _strange(why: str) -> Refused:
    return Refused(
        f"What kubectl printed can't be read: {why}. Check that `kubectl version` is that of Kubernetes, and which one "
        "is on the PATH.",
        code="cluster",
    )


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise _strange("it is not JSON") from None
    if not isinstance(found, dict):
        raise _strange("it is not an object")
    return found


def _items(text: str) -> Listed:
    items = _object(text).get("items")
    if not isinstance(items, list) or not all(isinstance(each, dict) for each in items):
        raise _strange("it is not a list of objects")
    return items


def _documents(text: str) -> list[dict[str, Any]]:
    import yaml

    try:
        found = [document for document in yaml.safe_load_all(text) if document]
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date that there is not
        raise _strange("it is not YAML") from None
    if not all(_is_object(each) for each in found):
        raise _strange("it is not a list of Kubernetes objects, each with a kind and a name")
    return found


def _is_object(found: Any) -> bool:
    return (
        isinstance(found, dict)
        and isinstance(found.get("kind"), str)
        and isinstance(found.get("metadata"), dict)
        and isinstance(found["metadata"].get("name"), str)
    )

"""The manifests as a cluster would get them, a file an object, so that a finding can name it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from kgents.scan.subject import Subject
from kgents.scan.toolbox import Broken, run

OVERLAYS = Path("deploy") / "overlays"
EXAMPLES = Path("deploy") / "examples"


def render(subject: Subject) -> Path:
    """A folder with `deploy/overlays/NAME/KIND.NAME.yaml` for each object, and the examples. Raises Broken."""
    with subject.lock:
        folder = subject.work / "manifests"
        if folder.exists():
            return folder
        overlays = sorted(
            path.parent.relative_to(subject.tree) for path in (subject.tree / OVERLAYS).glob("*/kustomization.yaml")
        )
        if not overlays:
            raise Broken(f"there is no overlay in {subject.tree / OVERLAYS}", code="nothing")
        partial = subject.work / "manifests.partial"
        for overlay in overlays:
            _write(partial / overlay, _kustomize(subject.tree / overlay))
        for name in subject.files():
            if name.is_relative_to(EXAMPLES) and name.suffix in (".yaml", ".yml"):
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(subject.tree / name, partial / name)
        return partial.rename(folder)


def _write(folder: Path, text: str) -> None:
    import yaml

    folder.mkdir(parents=True)
    try:
        objects = [each for each in yaml.safe_load_all(text) if each]
    except yaml.YAMLError as error:
        raise Broken(f"{folder.name} is rendered as what is no YAML: {error}", code="kustomize") from None
    for each in objects:
        (folder / f"{each['kind']}.{each['metadata']['name']}.yaml").write_text(yaml.safe_dump(each, sort_keys=False))


def _kustomize(overlay: Path) -> str:
    done = run([*_program(), str(overlay)])
    if done.status != 0:
        raise Broken(f"{overlay} can't be rendered: {done.last_words}", code="kustomize")
    return done.stdout


def _program() -> Sequence[str]:
    kubectl = shutil.which("kubectl")
    if kubectl:
        return [kubectl, "kustomize"]
    kustomize = shutil.which("kustomize")
    if kustomize is None:
        raise Broken("there is neither kubectl nor kustomize on the PATH", code="no-tool")
    return [kustomize, "build"]

"""`kgents deploy` where there is a kubectl and no cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.manifests import ROOT, kubectl
from tests.support.ports import free_port

OVERLAYS = ROOT / "deploy" / "overlays"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """`kgents` with a kubectl whose cluster does not answer."""
    configuration = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{free_port()}"}}
    context = {"name": "c", "context": {"cluster": "c", "user": ""}}
    configuration.write_text(
        f'{{"clusters": [{cluster}], "contexts": [{context}], "current-context": "c"}}'.replace("'", '"')
    )
    return Cli(tmp_path, PATH=str(kubectl().parent), KUBECONFIG=str(configuration))


def test_a_cluster_that_does_not_answer(cli: Cli) -> None:
    done = cli("deploy", "--overlay", OVERLAYS / "kind")
    assert done.status == 1
    assert "refused" in done.stderr
    assert "Traceback" not in done.stderr
    assert "secrets" not in cli("secrets", "check").complaint


def test_an_overlay_whose_images_were_never_set(cli: Cli) -> None:
    complaint = cli("deploy", "--overlay", OVERLAYS / "production").complaint
    assert "registry.example.com/kgents" in complaint
    assert "kustomize edit set image" in complaint


def test_a_folder_that_is_no_overlay(cli: Cli, tmp_path: Path) -> None:
    assert "kustomization" in cli("deploy", "--overlay", tmp_path).complaint


def test_an_overlay_of_two_namespaces(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [objects.yaml]\n")
    object_ = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: NAMESPACE}\n"
    text = "---\n".join(object_.replace("NAMESPACE", name) for name in ("one", "two"))
    (tmp_path / "objects.yaml").write_text(text)
    assert "one, two" in cli("deploy", "--overlay", tmp_path).complaint

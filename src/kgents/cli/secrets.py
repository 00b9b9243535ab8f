"""`kgents secrets`: whether an installation's secrets are complete. Their values are never printed."""

from __future__ import annotations

import base64
from typing import Annotated

import typer

from kgents.cli.options import Output, group
from kgents.cli.output import Format, show

secrets = group("Kubernetes: the secrets of an installation.")


@secrets.command("check")
def check(
    context: Annotated[str, typer.Option("--context", help="kubectl's context; the current one by default.")] = "",
    namespace: Annotated[str, typer.Option(help="The installation's namespace.")] = "kgents-agents",
    output: Output = Format.TABLE,
) -> None:
    """Say which values are missing or malformed, without printing any. Exit status 1 where one is."""
    from kgents.deploy.kubectl import Kubectl
    from kgents.deploy.secrets import check, require, wanted
    from kgents.tenants.keys import parse_peppers

    kubectl = Kubectl(context)
    wants = wanted(parse_peppers)
    found: dict[str, dict[str, str] | None] = {}
    for name in dict.fromkeys(want.secret for want in wants):
        secret = kubectl.get("secret", namespace, name)
        found[name] = None if secret is None else _decoded(secret.get("data") or {})
    verdicts = check(found, wants)
    show([each._asdict() for each in verdicts], output, ["secret", "key", "verdict", "detail"])
    require(verdicts)


def _decoded(data: dict[str, str]) -> dict[str, str]:
    return {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}

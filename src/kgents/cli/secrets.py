"""`kgents secrets`: whether an installation's secrets are complete. Their values are never printed."""

from __future__ import annotations

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
    from kgents.deploy.secrets import check, read, require, wanted
    from kgents.tenants.keys import parse_peppers

    kubectl = Kubectl(context)
    wants = wanted(parse_peppers)
    verdicts = check(read(lambda name: kubectl.get("secret", namespace, name), wants), wants)
    show([each._asdict() for each in verdicts], output, ["secret", "key", "verdict", "detail"])
    require(verdicts)

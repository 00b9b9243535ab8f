"""`kgents deploy`: bring an overlay into a cluster, and say how it is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kgents.cli.options import Output, group
from kgents.cli.output import Format, note, show
from kgents.errors import Unprocessable

deploy = group("Kubernetes: bring an overlay into a cluster.")

Overlay = Annotated[
    Path, typer.Option(exists=True, file_okay=False, help="A kustomize overlay, such as deploy/overlays/production.")
]
Context = Annotated[str, typer.Option("--context", help="kubectl's context; the current one by default.")]


@deploy.callback(invoke_without_command=True)
def run(
    call: typer.Context,
    overlay: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="A kustomize overlay, such as deploy/overlays/production."),
    ] = None,
    context: Context = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check it, and show what would change.")] = False,
    wait: Annotated[
        bool, typer.Option(help="Wait until everything is ready; otherwise for stores and jobs only.")
    ] = True,
    timeout: Annotated[float, typer.Option(min=10, help="Seconds for each step.")] = 600.0,
) -> None:
    """Deploy an overlay; where it fails, bring back what was there before."""
    if call.invoked_subcommand:
        return
    if overlay is None:
        raise typer.BadParameter("say which, such as --overlay deploy/overlays/production", param_hint="--overlay")
    from kgents.deploy.health import report
    from kgents.deploy.kubectl import Kubectl
    from kgents.deploy.plan import Plan
    from kgents.deploy.rollout import Rollout, missing_namespaces

    kubectl = Kubectl(context)
    plan = Plan.of(kubectl.render(overlay))
    rollout = Rollout(kubectl, plan, seconds=timeout, say=note)
    if dry_run:
        if missing := missing_namespaces(kubectl, plan):
            name = missing[0]["metadata"]["name"]
            raise Unprocessable(
                f"The namespace {name} is not there yet, so the cluster can't check what is to be in it. "
                f"Make it: kubectl create namespace {name}",
                code="no-namespace",
            )
        difference = rollout.check()
        typer.echo(difference or "nothing would change", nl=not difference)
        return
    rollout.run(wait=wait)
    if wait:
        way, found = report(kubectl, plan.namespace, plan.everything, seconds=timeout)
        note(f"asked through {way}:")
        for name, component in found["components"].items():
            note(f"{name}: {component['status']}")


@deploy.command("status")
def status(
    overlay: Overlay,
    context: Context = "",
    output: Output = Format.TABLE,
) -> None:
    """Say what of an overlay is not ready, and why. Exit status 1 where something is not."""
    from kgents.deploy.kubectl import Kubectl
    from kgents.deploy.plan import Plan
    from kgents.deploy.rollout import look

    kubectl = Kubectl(context)
    plan = Plan.of(kubectl.render(overlay))
    workloads = [each for each in plan.everything if each["kind"] in ("StatefulSet", "Deployment", "DaemonSet")]
    found = look(kubectl, workloads, plan.least)
    rows = [
        {
            "object": each.name,
            "ready": each.ready,
            "replicas": each.progress,
            "why": [str(finding) for finding in each.findings],
        }
        for each in found
    ]
    show(rows, output, ["object", "ready", "replicas", "why"])
    if not all(each.ready for each in found):
        raise typer.Exit(1)

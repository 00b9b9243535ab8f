"""`kgents scan`: what scanners say of the dependencies, the image and the configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kgents.cli.options import Output, group
from kgents.cli.output import Format, make_folder, note, progress, show, write
from kgents.errors import Unprocessable

if TYPE_CHECKING:
    from kgents.scan.subject import Subject

scan = group("Scan the dependencies, the image and the configuration.")

Tree = Annotated[Path, typer.Option(exists=True, file_okay=False, help="The source tree.")]


@scan.callback(invoke_without_command=True)
def run(
    call: typer.Context,
    tree: Tree = Path(),
    image: Annotated[
        Path | None, typer.Option(exists=True, help="The image too: an OCI layout's folder, or a docker archive.")
    ] = None,
    osv_db: Annotated[str, typer.Option("--osv-db", help="OSV's advisories: a URL or a file; theirs by default.")] = "",
    environment: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="A venv to look at for osv and licences, not the lock file."),
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this scanner; may be given again.")] = None,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="A scanner that could not look is no failure; the report says so.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write the report into this file, as JSON.")
    ] = None,
    sbom: Annotated[
        Path | None, typer.Option(file_okay=False, help="Write the bills of materials into this folder.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Run every scanner. Exit status 0 only where all of them pass.

    What is HIGH or CRITICAL needs an exception in security/exceptions.toml.
    """
    if call.invoked_subcommand:
        return
    import json
    import shutil
    import tempfile

    from kgents.clock import SystemClock, to_datetime
    from kgents.scan import exceptions, service
    from kgents.scan.subject import Subject
    from kgents.scan.toolbox import Toolbox

    unknown = sorted(set(only or ()) - set(service.SCANNERS))
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)} is none of {', '.join(service.SCANNERS)}", param_hint="--only")
    if report is not None:
        make_folder(report)  # now, and not when all scanners have run
    clock = SystemClock()
    accepted = exceptions.load(tree, to_datetime(clock.now()).date())
    with tempfile.TemporaryDirectory(prefix="kgents-scan-") as work:
        subject = Subject(
            tree.resolve(), Path(work), Toolbox.usual(), clock.now(), image=image, osv=osv_db, environment=environment
        )
        with progress("scanning"):
            found = service.scan(subject, accepted, clock=clock, only=only or (), allow_unknown=allow_unknown, say=note)
        document = {**_of_what(subject), **found.document()}
        bills = subject.work / "sbom"
        missing = sbom is not None and not (bills.exists() and any(bills.iterdir()))
        if missing:
            note(f"nothing was written into {sbom}: the scanner sbom did not run, or could not")
        elif sbom is not None:
            shutil.copytree(bills, sbom, dirs_exist_ok=True)
            note(f"wrote {sbom}")
    if report is not None:
        write(report, json.dumps(document, indent=2) + "\n")
        note(f"wrote {report}")
    if output is Format.TABLE:
        _print(document)
    else:
        show(document, output)
    if document["verdict"] != "pass" or missing:
        raise typer.Exit(1)


@scan.command("vex")
def vex(
    tree: Tree = Path(),
    file: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write it into this file; printed by default.")
    ] = None,
) -> None:
    """Export the exceptions that hold today as OpenVEX."""
    import json

    import kgents
    from kgents.clock import SystemClock, to_datetime
    from kgents.scan import exceptions
    from kgents.scan.vex import document

    now = SystemClock().now()
    today = to_datetime(now).date()
    accepted = [each for each in exceptions.load(tree, today) if not each.expired(today)]
    if not accepted:
        raise Unprocessable("There are no exceptions to export, and OpenVEX has no empty document.", code="vex")
    text = json.dumps(document(accepted, product=f"pkg:pypi/kgents@{kgents.__version__}", now=now), indent=2) + "\n"
    if file is None:
        sys.stdout.write(text)
    else:
        write(file, text)
        note(f"wrote {file}")


def _print(document: dict[str, Any]) -> None:
    show(
        document["scanners"],
        Format.TABLE,
        ["scanner", "verdict", "open", "excepted", "lower", "looked_at", "database", "why"],
    )
    bad = [
        each for each in document["findings"] if each["exception"] is None and each["severity"] in ("critical", "high")
    ]
    if bad:
        sys.stdout.write("\n")
        show(bad, Format.TABLE, ["severity", "scanner", "rule", "where", "title"])
    for why in dict.fromkeys(document["left_out"].values()):
        names = [name for name, reason in document["left_out"].items() if reason == why]
        note(f"left out: {', '.join(names)} ({why})")
    for each in document["expired_exceptions"]:
        note(f"EXPIRED exception: {_exception(each)}")
    for each in document["unused_exceptions"]:
        note(f"an exception that covers nothing: {_exception(each)}")
    if document["allow_unknown"]:
        note("what is unknown was allowed (--allow-unknown)")
    note(f"verdict: {document['verdict']}")


def _exception(each: dict[str, str]) -> str:
    return f"{each['scanner']} {each['rule']} in {each['where']}, until {each['until']} ({each['owner']})"


def _of_what(subject: Subject) -> dict[str, Any]:
    """Which kgents scanned which commit, and whether anything but evidence, where reports go, was changed since; the
    image's digests; with the tree, the environment and OSV's database where they were not the usual ones.
    """
    import kgents
    from kgents.scan.toolbox import git

    head = git(subject.tree, "rev-parse", "HEAD")
    changed = git(subject.tree, "status", "--porcelain", "--", ".", ":(exclude)evidence")
    other = {
        "tree": str(subject.tree) if subject.tree != Path.cwd() else "",
        "environment": str(subject.environment or ""),
        "osv_db": subject.osv,
        "image_digests": subject.image_digests(),
    }
    return {
        "kgents": kgents.__version__,
        "commit": head.strip() if head else None,
        "changed": None if changed is None else bool(changed),
        **{name: value for name, value in other.items() if value},
    }

"""`python -m release`: builds the release of the commit that is checked out, in dist/VERSION, if that may be.

`python -m release verify FOLDER` builds a release again, from the commit that its provenance names, and compares.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

from kgents.clock import Clock, SystemClock
from kgents.errors import Conflict, KgentsError
from kgents.scan.toolbox import run
from release import image, provenance, recipe, source, verify
from release.model import listed
from release.verify import Verdict

TREE = Path(__file__).resolve().parents[1]


def main() -> None:
    """Do what the command line says. Exit status 0 only where all is built, or all that was built again is the same."""
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    parser.add_argument("--without-image", action="store_true", help="leave the image out; the provenance says so")
    parser.add_argument("--local-base", action="store_true", help="base it on a Debian that debootstrap makes here")
    parser.add_argument("--out", type=Path, default=TREE / "dist", help="the folder to make VERSION in (dist)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    actions = parser.add_subparsers(dest="action")
    verifying = actions.add_parser("verify", help="build a release again, and compare")
    verifying.add_argument(
        "--without-image", action="store_true", default=argparse.SUPPRESS, help="don't build the image again"
    )
    verifying.add_argument("folder", type=Path, help="what `make release` wrote")
    given = parser.parse_args()
    recipe.settle()
    try:
        if given.action == "verify":
            check(given.folder, without_image=given.without_image)
        else:
            build(given.out, SystemClock(), without_image=given.without_image, local_base=given.local_base)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:  # who did not ask for a traceback gets a line that says what to do
        if given.debug:
            traceback.print_exception(error)
        failed = f"an error on our side: {type(error).__name__}; run again with --debug"
        said = error.detail if isinstance(error, KgentsError) else failed
        raise SystemExit(f"release: {said}") from None


def build(out: Path, clock: Clock, *, without_image: bool, local_base: bool) -> None:
    """Build a release into `out`/VERSION. Raises Conflict where it may not be, and Broken where it can't."""
    of = source.read(TREE)
    folder = out / of.version
    reasons = source.refusals(TREE, of)
    if folder.exists():
        reasons.append(f"{folder} is there already. Verify it (python -m release verify {folder}), or remove it.")
    if reasons:
        raise Conflict(f"{of.version} is not to be released from here:" + "".join(f"\n- {each}" for each in reasons))
    images = None if without_image else image.local() if local_base else image.Builder()
    started = clock.now()
    with tempfile.TemporaryDirectory(prefix="kgents-release-") as name:
        made = Path(name) / of.version
        made.mkdir()
        built = recipe.build(TREE, of, made, images, _say)
        tools = {"git": _version("git", "--version"), "uv": _version("scripts/uv", "--version")}
        statement = provenance.statement(of, built, tools, started, clock.now())
        (made / provenance.FILE).write_text(json.dumps(statement, indent=2) + "\n")
        (made / provenance.SUMS).write_text(listed(built.sums))
        out.mkdir(parents=True, exist_ok=True)
        shutil.move(made, folder)
    sys.stdout.write("".join(f"{value}  {name}\n" for name, value in built.subjects.items()))
    _say(f"wrote {folder}. It is not signed: docs/operations/release.md says how to do that, and what comes next.")


def check(folder: Path, *, without_image: bool) -> None:
    """Build a release again and print what came of each file; ends by SystemExit unless all is the same.

    Raises Conflict where this tree can't tell, and Broken where it can't be built.
    """
    claim = verify.read(folder)
    of = source.read(TREE)
    if reasons := verify.refusals(TREE, of, claim):
        raise Conflict("\n".join(reasons))
    images = None if without_image or not claim.bases else image.upon(claim.bases)
    verdicts = verify.compare(folder, TREE, of, claim, images, _say)
    sys.stdout.write("".join(f"{verdict:<9} {name}\n" for name, verdict in verdicts.items()))
    wrong = [name for name, verdict in verdicts.items() if verdict in (Verdict.DIFFERS, Verdict.CHANGED)]
    if wrong:
        raise SystemExit(f"release: not what {of.commit[:12]} gives: {', '.join(wrong)}. Don't publish it.")


def _version(*command: str) -> str:
    return run(command, cwd=TREE).stdout.strip()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()

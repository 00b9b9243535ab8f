"""What is released: one commit of a repository."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from kgents.errors import Conflict
from kgents.scan.toolbox import run
from release.changelog import lacking

LOCAL = "local"
_SCP = re.compile(r"(?:[^@/]+@)?(?P<host>[\w.-]+):(?P<path>[^/].*)")


@dataclass(frozen=True, slots=True)
class Source:
    """A commit: its id, its time (seconds since the epoch), and the version that its pyproject.toml gives.

    `repository` is the URL of `origin` without credentials, or `local`; `ref` is the version's tag where the commit
    has it, else the branch, else the commit.
    """

    repository: str
    ref: str
    commit: str
    epoch: int
    version: str

    @property
    def tag(self) -> str:
        """The name of the version's tag."""
        return f"v{self.version}"


def read(tree: Path) -> Source:
    """The commit that is checked out. Raises Conflict where there is none."""
    commit, epoch = git(tree, "log", "-1", "--format=%H %ct").split()
    version = str(tomllib.loads(git(tree, "show", f"{commit}:pyproject.toml"))["project"]["version"])
    tag = f"refs/tags/v{version}"
    branch = run(["git", "symbolic-ref", "--quiet", "HEAD"], cwd=tree).stdout.strip()
    ref = tag if tagged(tree, tag) == commit else branch or commit
    origin = run(["git", "remote", "get-url", "origin"], cwd=tree).stdout.strip()
    return Source(repository(origin), ref, commit, int(epoch), version)


def refusals(tree: Path, source: Source) -> list[str]:
    """Why this commit is not to be released now, and what to do for it; empty where it may be."""
    reasons = unfit(tree)
    reasons += lacking(git(tree, "show", f"{source.commit}:CHANGELOG.md"), source.version)
    other = tagged(tree, f"refs/tags/{source.tag}")
    if other not in ("", source.commit):
        reasons.append(
            f"The tag {source.tag} is on another commit, {other[:12]}, and this is {source.commit[:12]}. "
            f"Check that one out (git checkout {source.tag}), or give pyproject.toml a new version."
        )
    return reasons


def unfit(tree: Path) -> list[str]:
    """Why nothing that is built here is the commit's, whichever that is; empty where it would be."""
    reasons = []
    if changed := git(tree, "status", "--porcelain", "--untracked-files=all").splitlines():
        names = ", ".join(line[3:] for line in changed[:5]) + (", ..." if len(changed) > 5 else "")
        reasons.append(f"The work tree is not the commit: {names}. Commit, stash or remove that (git status).")
    if git(tree, "rev-parse", "--is-shallow-repository").strip() == "true":
        reasons.append("The history is cut off, and the image has its times. Get all of it: git fetch --unshallow")
    return reasons


def clone(tree: Path, source: Source, target: Path) -> None:
    """A new clone of the commit, so that nothing else that lies in the tree is built."""
    plain = ("-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", "core.symlinks=true", "-c", "core.fileMode=true")
    git(tree, *plain, "clone", "--quiet", "--no-checkout", str(tree), str(target))
    git(target, *plain, "checkout", "--quiet", "--detach", source.commit)


def tagged(tree: Path, ref: str) -> str:
    """The commit that a tag is on; empty where there is no such tag."""
    return run(["git", "rev-parse", "--quiet", "--verify", f"{ref}^{{commit}}"], cwd=tree).stdout.strip()


def repository(remote: str) -> str:
    """A remote's URL without the credentials that may be in it; `local` for a folder or none."""
    if "://" not in remote:
        found = _SCP.fullmatch(remote)
        return f"ssh://{found['host']}/{found['path']}" if found else LOCAL
    parts = urlsplit(remote)
    if parts.scheme == "file" or not parts.hostname:
        return LOCAL
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, f"{parts.hostname}{port}", parts.path, "", ""))


def git(tree: Path, *arguments: str) -> str:
    """What git answers. Raises Conflict with its complaint."""
    done = run(["git", *arguments], cwd=tree)
    if done.status != 0:
        raise Conflict(f"`git {' '.join(arguments)}` failed: {done.last_words}", code="git")
    return done.stdout

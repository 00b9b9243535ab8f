"""What a tree depends on: the packages of its uv.lock, or of an environment."""

from __future__ import annotations

import tomllib
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import NamedTuple

from packaging.utils import canonicalize_name

from kgents.scan.toolbox import Broken


class Package(NamedTuple):
    """A package at a version; `where` says who names it."""

    name: str
    version: str
    where: str


def locked(tree: Path) -> list[Package]:
    """Every package of uv.lock that comes from elsewhere, for every platform and group. Raises Broken."""
    path = tree / "uv.lock"
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise Broken(f"there is no uv.lock in {tree}", code="no-lock") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Broken(f"{path} is not TOML: {error}", code="no-lock") from None
    packages = [
        Package(canonicalize_name(each["name"]), each["version"], "uv.lock")
        for each in document.get("package", [])
        if "version" in each and not {"editable", "virtual", "directory"} & each.get("source", {}).keys()
    ]
    if not packages:
        raise Broken(f"{path} names no package", code="no-lock")
    return packages


def installed(environment: Path) -> list[Distribution]:
    """What is installed in an environment (a venv's folder). Raises Broken where that is nothing."""
    found = [
        each
        for folder in sorted(environment.glob("lib*/python*/site-packages"))
        if not folder.parent.parent.is_symlink()
        for each in distributions(path=[str(folder)])
    ]
    if not found:
        raise Broken(f"nothing is installed in {environment}", code="no-environment")
    return found


def packages_of(environment: Path) -> list[Package]:
    """The packages of an environment. Raises Broken."""
    return [Package(canonicalize_name(each.name), each.version, environment.name) for each in installed(environment)]

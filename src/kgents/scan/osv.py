"""Advisories of the Open Source Vulnerabilities format, and which packages they mean (https://ossf.github.io/osv-schema/)."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from kgents.clock import SECOND, from_rfc3339, to_rfc3339
from kgents.scan import cvss
from kgents.scan.lock import Package
from kgents.scan.model import Finding, Scanned, Severity
from kgents.scan.toolbox import Broken

SOURCE = "https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip"
"""Where OSV publishes every advisory about packages of PyPI."""
DAY = 86_400 * SECOND
FRESH = 7 * DAY
LEAST = 2_000  # advisories about packages of PyPI; OSV has many thousands, and a part of them clears nothing
LARGEST = 512 * 2**20  # bytes of the archive, and of what is in it
SECONDS = 60

Advisory = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Database:
    """Advisories by the canonical name of the package, how many there are, and the time (microseconds) of the latest
    change to any.
    """

    by_name: Mapping[str, Sequence[Advisory]]
    count: int
    changed: int

    @staticmethod
    def read(data: bytes) -> Database:
        """From an archive with a JSON file for each advisory. Raises Broken for what is none, or has none."""
        by_name: dict[str, list[Advisory]] = {}
        count = changed = 0
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if sum(each.file_size for each in archive.infolist()) > LARGEST:
                    raise Broken("the OSV database is larger than it may be", code="osv")
                for name in archive.namelist():
                    if not name.endswith(".json"):
                        continue
                    advisory = json.loads(archive.read(name))
                    count += 1
                    changed = max(changed, from_rfc3339(advisory["modified"]))
                    if advisory.get("withdrawn"):
                        continue
                    for package in {canonicalize_name(each["package"]["name"]) for each in _of_pypi(advisory)}:
                        by_name.setdefault(package, []).append(advisory)
        except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Broken(f"the OSV database can't be read: {type(error).__name__} {error}", code="osv") from None
        if not by_name:
            raise Broken("the OSV database has no advisory about packages of PyPI", code="osv")
        return Database(by_name, count, changed)

    @staticmethod
    def fetch(source: str) -> Database:
        """From a URL or a file. Raises Broken."""
        if not source.startswith(("https://", "http://")):
            try:
                return Database.read(Path(source).read_bytes())
            except OSError as error:
                raise Broken(f"there is no OSV database {source}: {error.strerror}", code="osv") from None
        return Database.read(_download(source))


class Undecided(Exception):
    """An advisory does not say in versions of PyPI what it is about."""


def scan(packages: Sequence[Package], database: Database, now: int, *, least: int = LEAST) -> Scanned:
    """What the advisories say of these packages, at `now` (microseconds). Old data, and fewer advisories than `least`,
    find things, but clear nothing.
    """
    findings = []
    undecided = []
    for package in packages:
        for advisory in database.by_name.get(package.name, ()):
            try:
                if affects(advisory, package):
                    findings.append(_finding(advisory, package))
            except (InvalidVersion, Undecided) as error:
                undecided.append(f"{advisory['id']} for {package.name} {package.version} ({error})")
    day = to_rfc3339(database.changed)
    unknown = ""
    if now - database.changed > FRESH:
        unknown = f"the latest change in its database is of {day[:10]}, more than a week ago"
    elif database.changed > now + DAY:
        unknown = f"the latest change in its database is of {day[:10]}, which is yet to come"
    elif database.count < least:
        unknown = f"its database has {database.count:,} advisories, which can't be all"
    elif undecided:
        unknown = f"not decided: {', '.join(undecided)}"
    return Scanned(f"{len(packages)} packages", "", day, _merged(findings), unknown)


def affects(advisory: Advisory, package: Package) -> bool:
    """Whether an advisory is about this version, by the format's rules. Raises InvalidVersion or Undecided if nobody
    can say.
    """
    version = Version(package.version)
    undecided = False
    for affected in _of_pypi(advisory):
        if canonicalize_name(affected["package"]["name"]) != package.name:
            continue
        listed = affected.get("versions") or ()
        ranges = [each["events"] for each in affected.get("ranges") or () if each["type"] == "ECOSYSTEM"]
        if any(_same(version, package.version, each) for each in listed):
            return True
        if any(_within(version, events) for events in ranges):
            return True
        undecided = undecided or not (listed or ranges)
    if undecided:
        raise Undecided("it names no versions of PyPI")
    return False


def _of_pypi(advisory: Advisory) -> Iterator[Mapping[str, Any]]:
    for affected in advisory.get("affected", ()):
        if affected.get("package", {}).get("ecosystem", "").partition(":")[0] == "PyPI":
            yield affected


def _same(version: Version, text: str, listed: str) -> bool:
    try:
        bound = Version(listed)
        return _beside(version, bound) == bound
    except InvalidVersion:  # of the time before PEP 440
        return text == listed


def _beside(version: Version, bound: Version) -> Version:
    """The version as it is compared with a bound: a build of one's own, such as 2.1.0+cpu, is 2.1.0 to those who name
    no build (PEP 440).
    """
    return version if bound.local else Version(version.public)


def _within(version: Version, events: Iterable[Mapping[str, str]]) -> bool:
    """The format's own algorithm: events in order of their versions, `introduced` before what ends a range."""
    limits = [each["limit"] for each in events if "limit" in each]
    if limits and not any(limit == "*" or _beside(version, Version(limit)) < Version(limit) for limit in limits):
        return False
    order = sorted(
        (
            (None if bound == "0" else Version(bound), kind)
            for each in events
            for kind, bound in each.items()
            if kind != "limit"
        ),
        key=lambda event: (event[0] is not None, event[0] or version, event[1] != "introduced"),
    )
    inside = False
    for bound, kind in order:
        compared = version if bound is None else _beside(version, bound)
        if kind == "introduced" and (bound is None or compared >= bound):
            inside = True
        elif bound is not None and (
            (kind == "fixed" and compared >= bound) or (kind == "last_affected" and compared > bound)
        ):
            inside = False
    return inside


def _finding(advisory: Advisory, package: Package) -> Finding:
    title = advisory.get("summary") or str(advisory.get("details", "")).strip().partition("\n")[0]
    return Finding(
        scanner="osv",
        rule=advisory["id"],
        where=f"{package.where}: {package.name} {package.version}",
        severity=_severity(advisory),
        title=title[:200],
        also=tuple(advisory.get("aliases", ())),
    )


def _severity(advisory: Advisory) -> Severity:
    said = (advisory.get("database_specific") or {}).get("severity")
    if said:
        return Severity.of(said)
    for each in advisory.get("severity", ()):
        if each.get("type") == "CVSS_V3":
            try:
                return cvss.severity(each["score"])
            except ValueError:
                return Severity.HIGH
    return Severity.HIGH


def _merged(findings: Iterable[Finding]) -> list[Finding]:
    """One finding for all advisories about the same flaw of the same package, at the worst of their severities."""
    kept: list[Finding] = []
    for finding in findings:
        ids = {finding.rule, *finding.also}
        same = next((each for each in kept if each.where == finding.where and ids & {each.rule, *each.also}), None)
        if same is None:
            kept.append(finding)
            continue
        order = list(Severity)
        kept[kept.index(same)] = Finding(
            same.scanner,
            same.rule,
            same.where,
            min(same.severity, finding.severity, key=order.index),
            same.title,
            tuple(sorted((ids | set(same.also)) - {same.rule})),
        )
    return kept


def _download(url: str) -> bytes:
    import httpx2

    try:
        with httpx2.stream("GET", url, follow_redirects=True, timeout=SECONDS) as response:
            if response.status_code != 200:
                raise Broken(f"the OSV database at {url} was answered with {response.status_code}", code="osv")
            data = bytearray()
            for part in response.iter_bytes():
                data += part
                if len(data) > LARGEST:
                    raise Broken(f"the OSV database at {url} is larger than it may be", code="osv")
            return bytes(data)
    except httpx2.HTTPError as error:
        raise Broken(f"the OSV database at {url} can't be fetched: {type(error).__name__}", code="osv") from None

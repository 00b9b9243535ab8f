"""A pytest plugin that says at the end what failed and how, and which tiers ran, for how long, and which were left out.

`scripts/test` loads it. With CI=true, a tier that was left out, wholly or in part, fails the run.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

(
    UNIT,
    ARCHITECTURE,
    CONTRACT,
    NODE,
    DOCS,
    SQLITE,
    POSTGRES,
    REDIS,
    ISOLATION,
    FAULTS,
    FUZZING,
    CONFORMANCE,
    SECURITY,
    BROWSER,
    MANIFESTS,
    SCANNERS,
    RELEASE,
    CLUSTER,
) = TIERS = (
    "unit",
    "architecture and lint",
    "contract",
    "SDK on Node.js",
    "documentation",
    "integration on SQLite",
    "integration on PostgreSQL",
    "integration with Redis",
    "isolation of tenants",
    "faults",
    "fuzzing",
    "conformance",
    "security",
    "in a browser",
    "manifests",
    "scanners",
    "release",
    "in a cluster",
)
LONGEST = 25  # files
TOLD = 500  # characters of what a failed test raised
_TIER = "tier"
_BY_MARK = {"node": NODE, "postgres": POSTGRES, "redis": REDIS}
FOLDERS = {
    "unit": UNIT,
    "architecture": ARCHITECTURE,
    "contract": CONTRACT,
    "docs": DOCS,
    "integration": SQLITE,
    "isolation": ISOLATION,
    "faults": FAULTS,
    "fuzz": FUZZING,
    "conformance": CONFORMANCE,
    "security": SECURITY,
    "browser": BROWSER,
    "deploy": MANIFESTS,
    "scan": SCANNERS,
    "release": RELEASE,
    "cluster": CLUSTER,
}


def tier_of(item: pytest.Item) -> str:
    """The tier of a test: by its mark, else by its folder under tests/."""
    for mark, tier in _BY_MARK.items():
        if item.get_closest_marker(mark):
            return tier
    tests = Path(item.config.rootpath) / "tests"
    folder = item.path.relative_to(tests).parts[0]
    if folder not in FOLDERS:
        raise pytest.UsageError(f"{item.path} is in no tier: tests live in tests/{{{','.join(FOLDERS)}}}")
    return FOLDERS[folder]


@dataclass(eq=False)
class Tiers:
    """What each tier's tests came to."""

    passed: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, Counter[str]] = field(default_factory=lambda: {tier: Counter() for tier in TIERS})
    milliseconds: Counter[str] = field(default_factory=Counter)
    """Of each tier, set-up included: of all processes together."""
    of_files: Counter[str] = field(default_factory=Counter)
    """The same of each file."""
    failures: list[str] = field(default_factory=list)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            # A property of the test, since a process of pytest-xdist sends its reports to one that has no tests.
            item.user_properties.append((_TIER, tier_of(item)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        tier = str(dict(report.user_properties)[_TIER])
        taken = round(report.duration * 1000)
        self.milliseconds[tier] += taken
        self.of_files[report.nodeid.partition("::")[0]] += taken
        if report.failed:
            self.failed[tier] += 1
            self.failures.append(_told(report))
        elif report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else "skipped"
            self.skipped[tier][reason.removeprefix("Skipped: ")] += 1
        elif report.when == "call":
            self.passed[tier] += 1

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        is_whole = not hasattr(session.config, "workerinput")  # rather than one of several processes
        if exitstatus == pytest.ExitCode.OK and is_whole and self.is_partial() and os.environ.get("CI") == "true":
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def is_partial(self) -> bool:
        """Whether a tier was left out, wholly or in part."""
        return any(self.skipped[tier] or not self.ran(tier) for tier in TIERS)

    def ran(self, tier: str) -> int:
        """How many of a tier's tests were run."""
        return self.passed[tier] + self.failed[tier]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
        yield  # the last word before pytest's own closing line
        terminalreporter.section("files that took longest")
        for name, taken in self.of_files.most_common(LONGEST):
            terminalreporter.line(f"{taken // 1000:>5} s {name}")
        if self.failures:
            terminalreporter.section("what failed")
        for failure in self.failures:
            terminalreporter.line(failure, red=True)
        terminalreporter.section("tiers")
        for tier in TIERS:
            terminalreporter.line(f"{tier:<27} {self.line(tier)}, {self.milliseconds[tier] // 1000} s")
        if self.is_partial() and os.environ.get("CI") == "true":
            terminalreporter.line("With CI=true, a tier that is left out is a failure.", red=True)

    def line(self, tier: str) -> str:
        """One tier in words."""
        reasons = "; ".join(f"{count} left out: {reason}" for reason, count in self.skipped[tier].items())
        if not self.ran(tier):
            return f"LEFT OUT  {reasons or 'none of its tests was chosen'}"
        failed = f", {self.failed[tier]} failed" if self.failed[tier] else ""
        return f"ran       {self.passed[tier]} passed{failed}" + (f", {reasons}" if reasons else "")


def _told(report: pytest.TestReport) -> str:
    """A failure in short: when, how long it took, and what was raised, of which pytest's own summary has but a line."""
    ended = datetime.fromtimestamp(report.stop, UTC)
    crash = getattr(report.longrepr, "reprcrash", None)
    raised = (crash.message if crash else report.longreprtext)[:TOLD]
    return f"{report.nodeid} ({report.when}, {report.duration:.0f} s, until {ended:%H:%M:%S}): {raised}"


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Tiers(), "kgents-tiers")

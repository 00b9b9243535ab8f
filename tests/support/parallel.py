"""A pytest plugin that shares the tests out among processes, a file at a time.

Last come those that a busy machine would fail, since they await something within seconds, as a user would: first those
that wait for most of their time, beside each other only, then one after the other those that need the whole machine.

`scripts/test` loads it, with pytest-xdist, and names in KGENTS_PREPARING the process that builds what the tests in a
cluster need, by its number and when it began: while that works, the machine is busy.
"""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from cluster.namespace import start_of
from tests.support.waiting import wait_until

ALONE = (
    "tests/cluster/",
    "tests/faults/test_crash_points.py",
    "tests/faults/test_freezes.py",
    "tests/faults/test_full_disks.py",
    "tests/faults/test_kills.py",
    "tests/faults/test_overload.py",
    "tests/faults/test_partitions.py",
    "tests/faults/test_power_cuts.py",
    "tests/integration/system/test_overload.py",
)
QUIET = (
    "tests/docs/test_documents.py",
    "tests/docs/test_runbook.py",
    "tests/integration/system/test_full_disk.py",
    "tests/integration/system/test_health.py",
    "tests/integration/system/test_ports.py",
    "tests/integration/tenants/test_authenticator.py",
    "tests/integration/tenants/test_limiter_faults.py",
)
# Files with few tests, each of which takes long: they start first, so that no process is left alone with one at last.
SLOW = (
    "tests/browser/",
    "tests/conformance/",
    "tests/docs/",
    "tests/faults/",
    "tests/fuzz/",
    "tests/integration/load/",
    "tests/integration/system/",
    "tests/isolation/",
    "tests/release/",
    "tests/scan/",
)
PREPARED_WITHIN = 1800.0  # seconds
LONG = 60.0  # seconds
TOLD = 12  # lines of a failure
FEW = 2  # tests that a process always has: it runs one when it knows the next
_ALONE = "alone"


class Scheduler(LoadFileScheduling):  # type: ignore[misc] # pytest-xdist ships no types: its class is Any
    """Gives out the files that are quiet when the others have been run but for a few tests; then ends all processes but
    one, and gives that one the files that are alone once the others have done their last test.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _ALONE if nodeid.startswith(ALONE) else str(super()._split_scope(nodeid))

    def _assign_work_unit(self, node: Any) -> None:
        for last in [*filter(_is_quiet, self.workqueue), *filter(_ALONE.__eq__, self.workqueue)]:
            self.workqueue.move_to_end(last)
        if slow := next((scope for scope in self.workqueue if _is_slow(scope)), None):
            self.workqueue.move_to_end(slow, last=False)
        super()._assign_work_unit(node)

    def _reschedule(self, node: Any) -> None:
        if any(scope != _ALONE and not _is_quiet(scope) for scope in self.workqueue):
            super()._reschedule(node)
        elif not any(self._busy(each) for each in self.nodes):
            for each in self.nodes:
                if list(self.workqueue) == [_ALONE]:
                    self._end(each)
                else:
                    super()._reschedule(each)

    def _busy(self, node: Any) -> bool:
        """Whether a process has still to run more than a few of the tests that keep the machine busy."""
        work = {scope: tests for scope, tests in self.assigned_work[node].items() if not _is_quiet(scope)}
        return bool(self._pending_of(work) > FEW) and _ALONE not in work

    def _end(self, node: Any) -> None:
        last, *others = self.nodes
        if node is not last and not node.shutting_down:
            node.shutdown()  # after the tests that it has
        if not any(self._pending_of(self.assigned_work[other]) for other in others):
            super()._reschedule(last)


def _is_quiet(scope: str) -> bool:
    return scope.startswith(QUIET)


def _is_slow(scope: str) -> bool:
    return scope.startswith(SLOW) and not _is_quiet(scope)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduler:
    return Scheduler(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """The process that shares out tells of what comes back to it."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Telling(config))


class Telling:
    """Says at once what failed and how long it took, since a run that is ended from outside prints no summary."""

    def __init__(self, config: pytest.Config) -> None:
        self._plugins = config.pluginmanager

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tell of a test that failed, and of one that took minutes."""
        if report.failed:
            self._tell(f"FAILED {report.nodeid} ({report.when}, {report.duration:.0f} s)\n{_end(report)}")
        elif report.duration > LONG:
            self._tell(f"{report.nodeid} ({report.when}) took {report.duration:.0f} s")

    def _tell(self, text: str) -> None:
        if terminal := self._plugins.get_plugin("terminalreporter"):
            terminal.write_line(f"\n{time.strftime('%H:%M:%S', time.gmtime())} {text}")


def _end(report: pytest.TestReport) -> str:
    return "\n".join(report.longreprtext.splitlines()[-TOLD:])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What runs alone waits until the builder has ended."""
    builder = os.environ.get("KGENTS_PREPARING")
    if builder and item.nodeid.startswith((*ALONE, *QUIET)):
        number, began = builder.split()
        wait_until(
            lambda: start_of(int(number)) != began, seconds=PREPARED_WITHIN, what="the cluster's parts are built"
        )

"""A pytest plugin that shares the tests out among processes, a file at a time, and runs those alone, and last, that a
busy machine would fail: they await something within seconds, as a user would.

`scripts/test` loads it, with pytest-xdist.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

ALONE = (
    "tests/cluster/",
    "tests/docs/",
    "tests/faults/test_crash_points.py",
    "tests/faults/test_freezes.py",
    "tests/faults/test_full_disks.py",
    "tests/faults/test_kills.py",
    "tests/faults/test_overload.py",
    "tests/faults/test_partitions.py",
    "tests/faults/test_power_cuts.py",
    "tests/integration/system/",
    "tests/integration/tenants/test_authenticator.py",
    "tests/integration/tenants/test_limiter_faults.py",
)
_ALONE = "alone"


class Scheduler(LoadFileScheduling):  # type: ignore[misc] # pytest-xdist ships no types: its class is Any
    """Ends all processes but one when nothing else is left to share out, and gives that one the files that are alone
    once the others have done their last test.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _ALONE if nodeid.startswith(ALONE) else str(super()._split_scope(nodeid))

    def _assign_work_unit(self, node: Any) -> None:
        if next(iter(self.workqueue)) == _ALONE:
            self.workqueue.move_to_end(_ALONE)
        super()._assign_work_unit(node)

    def _reschedule(self, node: Any) -> None:
        if list(self.workqueue) != [_ALONE]:
            super()._reschedule(node)
            return
        last, *others = self.nodes
        if node is not last and not node.shutting_down:
            node.shutdown()  # after the tests that it has
        if not any(self._pending_of(self.assigned_work[other]) for other in others):
            super()._reschedule(last)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduler:
    return Scheduler(config, log)

"""Groups: writes that wait at the same moment are committed together.

One fsync then serves many requests, which is what makes a durable commit for each of them affordable.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from kgents.store.failures import is_collision, is_outage, unavailable
from kgents.store.interface import GroupOp

MAX_GROUP = 256
GATHER = 0.0005  # seconds
"""How long a group of several is followed by waiting for more. What its callers do next arrives within a moment: begun
without it, the next group is small, costs nearly as much as a large one, and takes the processor from those who would
have been in it. A caller who is alone never waits.
"""
TRIES = 3  # of an item whose transaction collides with another
RECENT = 3.0  # seconds for which a group that was not kept says something of the database: it may be back by then


@dataclass(slots=True)
class Waiting:
    """An item that waits to be committed, and the future that its caller awaits."""

    op: GroupOp[Any, Any]
    item: Any
    future: asyncio.Future[Any]


class LastGroups:
    """What became of the last group of each kind of operation: on a full disk one may find room, and another not."""

    def __init__(self) -> None:
        self._failures: dict[type, tuple[BaseException, float]] = {}

    def ended(self, group: Sequence[Waiting], results: Sequence[Any]) -> None:
        """Take note of a group's results."""
        failed = ended_by_outage(results)
        for kind in {type(waiting.op) for waiting in group}:
            if failed:
                self._failures[kind] = results[-1], time.monotonic()
            else:
                self._failures.pop(kind, None)

    def failure(self) -> BaseException | None:
        """Why the database did not keep one of them, where it did not, and no more than RECENT seconds ago."""
        since = time.monotonic() - RECENT
        return next((error for error, ended in tuple(self._failures.values()) if ended > since), None)


def run_group(connection: Connection, group: Sequence[Waiting]) -> list[Any]:
    """Run each operation of the group once, on all of its items; answers in the group's order."""
    results: list[Any] = [None] * len(group)
    for indexes in _by_operation(group):
        op = group[indexes[0]].op
        for index, result in zip(indexes, op.apply(connection, [group[index].item for index in indexes]), strict=True):
            results[index] = result
    return results


def by_operation(group: Sequence[Waiting]) -> list[list[Waiting]]:
    """The group's items by their operation, in the order in which each came first."""
    return [[group[index] for index in indexes] for indexes in _by_operation(group)]


def _by_operation(group: Sequence[Waiting]) -> list[list[int]]:
    parts: dict[int, list[int]] = {}
    for index, waiting in enumerate(group):
        parts.setdefault(id(waiting.op), []).append(index)
    return list(parts.values())


def settle(group: Sequence[Waiting], results: Sequence[Any]) -> None:
    """Give each caller its result. To be called on the event loop's thread."""
    for waiting, result in zip(group, results, strict=True):
        if waiting.future.done():
            continue  # the caller went away; what it asked for is committed all the same
        if isinstance(result, BaseException):
            waiting.future.set_exception(_for_caller(result))
        else:
            waiting.future.set_result(result)


def settle_soon(group: Sequence[Waiting], results: Sequence[Any]) -> None:
    """`settle`, from another thread. Callers whose event loop has ended are past telling."""
    with contextlib.suppress(RuntimeError):
        group[0].future.get_loop().call_soon_threadsafe(settle, group, results)


def _for_caller(error: BaseException) -> BaseException:
    if is_outage(error) or is_collision(error):
        return unavailable(error)
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    # A future can't carry a StopIteration, and an exception that ends a thread or task is not the caller's to raise.
    wrapped = RuntimeError(f"the work raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped


def is_final(error: BaseException, size: int, tries: int) -> bool:
    """Whether a group of this size that failed after so many tries is to be refused, rather than tried again."""
    return is_outage(error) or (size == 1 and not (is_collision(error) and tries < TRIES))


def halves(group: list[Waiting]) -> tuple[list[Waiting], list[Waiting]]:
    """The group in two; the first is the longer one where they differ."""
    middle = (len(group) + 1) // 2
    return group[:middle], group[middle:]


def ended_by_outage(results: Sequence[Any]) -> bool:
    """Whether the last of the results is that the database is away, so that there is no use in asking on."""
    return isinstance(results[-1], BaseException) and is_outage(results[-1])

"""`kgents` with named points at which a process of it kills itself, once, when a file of the point's name is there;
with a control, and with settings of some processes' own.

Each point is a function of the product and a side of it. The files are in the folder that CRASH_POINTS names; arming a
point is making its file, and the process that comes by takes the file away before it dies.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kgents.cli.one_machine import OneMachine
from kgents.cli.supervisor import Forked
from kgents.config import Settings
from tests.faults.controls import CONTROLS


class Point(NamedTuple):
    """Before or after a function, given as module:name or module:class.name. `first` is a point to arm with it, where
    nobody would come by otherwise.
    """

    function: str
    side: Literal["before", "after"]
    first: str = ""


POINTS = {
    # A request: admission, the model, the record, the answer.
    "run asked for": Point("kgents.agents.executor:Executor.admit", "before"),
    "admission in its transaction": Point("kgents.agents.ledger_ops:Admit.apply", "after"),
    "run admitted": Point("kgents.agents.executor:Executor._carry_out", "before"),
    "model about to be called": Point("kgents.agents.runner:RunTask.execute", "before"),
    "model has answered": Point("kgents.agents.executor:Executor._record", "before"),
    "record in its transaction": Point("kgents.agents.ledger_ops:RecordStep.apply", "after"),
    "run recorded": Point("kgents.agents.executor:Executor._ended", "before"),
    "answer about to be sent": Point("kgents.agents.executor:Executor.carry_out", "after"),
    "event of a stream sent": Point("kgents.agents.events:Channel.put", "after"),
    # A run of the queue.
    "run taken from the queue": Point("kgents.workers.runs:RunWorker._work", "before"),
    "run claimed": Point("kgents.workers.runs:RunWorker._start", "before"),
    "run of the queue recorded": Point("kgents.workers.runs:RunWorker._work", "after"),
    "orphans found": Point("kgents.agents.runs:orphans", "after", "run admitted"),
    # Usage on its way to the meter.
    "outbox read": Point("kgents.workers.relay:Relay._publish", "before"),
    "usage stored by the bus": Point("kgents.workers.relay:Relay._publish", "after"),
    "outbox emptied": Point("kgents.workers.relay:Relay.step", "after"),
    "usage taken from the bus": Point("kgents.workers.meter_sink:MeterSink._deliver", "before"),
    "usage accepted by the meter": Point("kgents.workers.meter_sink:MeterSink._deliver", "after"),
    "usage acknowledged": Point("kgents.workers.meter_sink:MeterSink._settle", "after"),
    "meter about to write": Point("kgents.meter.storage:Storage.ingest", "before"),
    "meter in its transaction": Point("kgents.meter.layout:Tally.write", "after"),
    "meter has written": Point("kgents.meter.storage:Storage.ingest", "after"),
}


def arm(folder: Path, name: str) -> None:
    """Have the next process that comes by the point die there."""
    (folder / name).touch()


def armed(folder: Path, name: str) -> bool:
    """Whether nobody has come by yet."""
    return (folder / name).exists()


def _pass(folder: Path, name: str) -> None:
    armed_file = folder / name
    if armed_file.exists():
        try:
            armed_file.unlink()
        except FileNotFoundError:
            return  # another process was first
        os.kill(os.getpid(), signal.SIGKILL)


def plant(folder: Path) -> None:
    """Put the points into the functions. To be called before anything else imports them by name."""
    for name, point in POINTS.items():
        module_name, _, path = point.function.partition(":")
        holder: Any = importlib.import_module(module_name)
        *outer, attribute = path.split(".")
        for part in outer:
            holder = getattr(holder, part)
        passing = functools.partial(_pass, folder, name)
        setattr(holder, attribute, _wrapped(getattr(holder, attribute), point.side, passing))


def _wrapped(function: Callable[..., Any], side: str, passing: Callable[[], None]) -> Callable[..., Any]:
    before, after = (passing, _nothing) if side == "before" else (_nothing, passing)

    @functools.wraps(function)
    def plain(*arguments: Any, **options: Any) -> Any:
        before()
        result = function(*arguments, **options)
        after()
        return result

    @functools.wraps(function)
    async def awaited(*arguments: Any, **options: Any) -> Any:
        before()
        result = await function(*arguments, **options)
        after()
        return result

    return awaited if inspect.iscoroutinefunction(function) else plain


def give_own_settings(settings: dict[str, dict[str, str]]) -> None:
    """Give the processes named settings of their own, such as another way to what they depend on."""
    for process, own in settings.items():
        setattr(OneMachine, f"_{process}", _with(getattr(OneMachine, f"_{process}"), own))


def _with(sound: Callable[[OneMachine, Settings], Forked], own: dict[str, str]) -> Callable[..., Forked]:
    return lambda machine, base: sound(machine, base.model_copy(update=own))


def _nothing() -> None:
    """The other side."""


if __name__ == "__main__":
    if folder := os.environ.get("CRASH_POINTS"):
        plant(Path(folder))
    if own_settings := os.environ.get("OWN_SETTINGS"):
        give_own_settings(json.loads(own_settings))
    if control := os.environ.get("CONTROL"):
        CONTROLS[control]()
    from kgents.cli.main import main

    main()

"""Logs: one JSON object a line, with the request's and tenant's ids, and never a secret or a message's text."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sys
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, MutableMapping
from contextvars import Context, ContextVar
from types import MappingProxyType
from typing import Any, NamedTuple, TextIO

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from kgents.clock import SystemClock, to_rfc3339
from kgents.errors import KgentsError

MASK = "***"
WAIT = 0.1  # seconds: that often the lines of requests are written together, while there are many
FEW = 8  # lines in that time that are written at once
MOST_WAITING = 256  # lines
_SECRET_NAMES = re.compile(
    r"authorization|api[-_]?key|token$|password|passwd|pwd$|pepper|secret|cookie|credential|private_?key|^dsn$",
    re.IGNORECASE,
)
_SECRETS = re.compile(
    r"kg_[0-9a-z]{16}_(?:(?!kg_)[0-9A-Za-z])+|\bsk-[A-Za-z0-9_-]{8,}|\b(?:[rs]k_(?:test|live)|whsec)_[A-Za-z0-9_]+"
    r"|\bAIza[A-Za-z0-9_-]{20,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}|\b(?:gh[pousr]|hf|gsk|xai)[-_][A-Za-z0-9_-]{16,}"
    r"|(?i:bearer)\s+[A-Za-z0-9._~+/=-]+|(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"
)
_SILENT = ("mcp", "client")
"""The loggers of the library `mcp`, which logs what a tenant's server sends, once for each event. What fails there is
told to the model and in the trace.
"""
_clock = SystemClock()
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_bound: ContextVar[Mapping[str, Any]] = ContextVar("log", default=_NOTHING)


def configure(level: str, process: str, stream: TextIO | None = None) -> None:
    """Log at `level` and above to `stream` (stdout), with the process's name; other libraries at warning and above."""
    number = logging.getLevelNamesMapping()[level.upper()]
    target = stream or sys.stdout
    structlog.configure(
        processors=[
            _with_bound,
            structlog.processors.add_log_level,
            _stamp(process),
            _exception,
            _redact,
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _Lines(target),
        cache_logger_on_first_use=True,
    )
    _Requests.lines = _RequestLines(target, process) if number <= logging.INFO else None
    handler = _Forward()
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def flush() -> None:
    """Write the lines that wait. To be called before a process ends."""
    if _Requests.lines is not None:
        _Requests.lines.write()


class _Lines:
    """Writes lines. A reader that went away, or a full disk, must not stop what is being logged about."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        flush()  # what happened before stands before
        _write(self._stream, line)

    debug = info = warning = error = critical = exception = msg


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        return


class _Answered(NamedTuple):
    """An HTTP request that was answered, `at` microseconds since the epoch, and what was bound then."""

    bound: Mapping[str, Any]
    method: str
    route: str
    status: int
    duration_ms: float
    at: int


class _RequestLines:
    """Writes the lines of requests: a few at once, and of many those of a moment together. That takes a fraction of the
    time, and a write for each turn of the event loop would give up the interpreter's lock to threads that wait for it.
    Who kills the process loses what waits.
    """

    def __init__(self, stream: TextIO, process: str) -> None:
        self._stream = stream
        self._process = process
        self._waiting: deque[_Answered] = deque()
        self._due_on: asyncio.AbstractEventLoop | None = None
        self._at_once = 0
        self._context = Context()  # not that of a request

    def add(self, answered: _Answered) -> None:
        """Write its line within WAIT. To be called on an event loop's thread."""
        self._waiting.append(answered)
        loop = asyncio.get_running_loop()
        if self._due_on is not loop:
            self._due_on, self._at_once = loop, FEW
            loop.call_later(WAIT, self._on_time, context=self._context)
        if self._at_once:
            self._at_once -= 1
            loop.call_soon(self.write, context=self._context)
        elif len(self._waiting) >= MOST_WAITING:
            self.write()

    def _on_time(self) -> None:
        self._due_on = None
        self.write()

    def write(self) -> None:
        """Write what waits, now. May be called on any thread."""
        lines = "".join(map(self._line, self._taken()))
        if lines:
            _write(self._stream, lines)

    def _taken(self) -> Iterator[_Answered]:
        with contextlib.suppress(IndexError):
            while True:
                yield self._waiting.popleft()

    def _line(self, answered: _Answered) -> str:
        line = {
            **answered.bound,
            "method": answered.method,
            "route": answered.route,
            "status": answered.status,
            "duration_ms": answered.duration_ms,
            "event": "request",
            "level": "info",
            "timestamp": to_rfc3339(answered.at),
            "process": self._process,
        }
        return orjson.dumps(line, default=str).decode() + "\n"


class _Requests:
    """Where the lines of requests go; nowhere while logs of their level are not wanted."""

    lines: _RequestLines | None = None


def request(method: str, route: str, status: int, duration_ms: float) -> None:
    """The line of an HTTP request that was answered. There is one for every request, so it does not take the way of
    other lines: `route` is a template and the rest is checked or made by us, and what is bound was masked then.
    """
    lines = _Requests.lines
    if lines is not None:
        lines.add(_Answered(_bound.get(), method, route, status, duration_ms, _clock.now()))


class _Forward(logging.Handler):
    """Other libraries' records, in our form.

    Of a message only what stands in the code is written: arguments may hold what a tenant sent, and so may a whole
    message that was put together when it was logged, as an f-string is. In its place stands where it was logged.
    """

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(record.name)
        error = record.exc_info[1] if record.exc_info else None
        if _is_constant(record.msg):
            said = {"message": (record.msg.splitlines() or [""])[0][:200]}
        else:
            said = {"logged_at": f"{record.filename}:{record.lineno} {record.funcName}"}
        log.log(record.levelno, "library", library=record.name, **said, exc_info=error)


def _is_constant(message: object) -> bool:
    """Whether a message is a text in the code of a function that now runs. Wrappers of loggers pass texts on, so all of
    them are asked.
    """
    frame = sys._getframe() if isinstance(message, str) else None
    while frame is not None and message not in frame.f_code.co_consts:
        frame = frame.f_back
    return frame is not None


def _with_bound(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    return {**_bound.get(), **event}


def _stamp(process: str) -> Any:
    def stamp(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        event["timestamp"] = to_rfc3339(_clock.now())
        event["process"] = event.get("process", process)
        return event

    return stamp


def _exception(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """An exception as its type and where it came from. Its message is kept only when it is ours: others quote data."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["exception"] = type(error).__qualname__
        if isinstance(error, KgentsError):
            event["reason"] = error.detail
        frames = traceback.extract_tb(error.__traceback__)[-12:]
        event["frames"] = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    return event


def redact(value: Any) -> Any:
    """A value with what looks like a secret masked, at any depth."""
    if isinstance(value, str):
        return _SECRETS.sub(MASK, value) if len(value) > 8 else value
    if isinstance(value, Mapping):
        return {name: MASK if _SECRET_NAMES.search(str(name)) else redact(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item) for item in value]
    return value if isinstance(value, int | float | bool | None) else redact(str(value))


def _redact(_logger: WrappedLogger, _name: str, event: MutableMapping[str, Any]) -> EventDict:
    safe: EventDict = redact(event)
    return safe


def _render(_logger: WrappedLogger, _name: str, event: EventDict) -> str:
    return orjson.dumps(event, default=str).decode() + "\n"


class bound:  # noqa: N801 - used as a function
    """Have every line within carry these values: ids that were made or checked by us, and hold no secret."""

    __slots__ = ("_token", "_values")

    def __init__(self, **values: Any) -> None:
        self._values = values

    def __enter__(self) -> None:
        self._token = _bound.set(_with(self._values))

    def __exit__(self, *_: object) -> None:
        _bound.reset(self._token)


def bind(**values: Any) -> None:
    """Have every line from here to the end of the surrounding `bound` carry these values."""
    _bound.set(_with(values))


def _with(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**_bound.get(), **values}

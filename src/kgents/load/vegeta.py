"""Load by vegeta (https://github.com/tsenart/vegeta), which starts requests at a constant rate, whatever becomes of
earlier ones.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import tempfile
from array import array
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from kgents.errors import Unprocessable
from kgents.load.measured import Counts, Sample, Samples
from kgents.load.traffic import Request, kind_of

TIMEOUT = 30.0  # seconds that an answer may take
_FRACTION = 1000  # vegeta takes whole requests in a time: thousandths of a request a second


@dataclass(frozen=True, slots=True)
class Vegeta:
    """The program, and a file of requests for it, each in turn; `made` makes one."""

    program: Path
    targets: Path

    async def at_rate(self, rate: float, seconds: float, counts: Counts) -> Samples:
        """`rate` requests a second for `seconds`. Raises Unprocessable when it fails."""
        pace = f"{round(rate * _FRACTION)}/{_FRACTION}s"
        rows = await self._attack([f"-rate={pace}", "-max-connections=0"], seconds, counts)
        return rows.samples(1 / rate)

    async def closed(self, workers: int, seconds: float, counts: Counts) -> Samples:
        """Each of so many workers sends its next request once it has the answer to its last."""
        return (await self._attack(["-rate=0", f"-max-workers={workers}"], seconds, counts)).samples(0.0)

    async def _attack(self, how: Sequence[str], seconds: float, counts: Counts) -> _Rows:
        attack: list[str | Path] = [
            *(
                self.program,
                "attack",
                f"-targets={self.targets}",
                "-format=json",
                f"-duration={round(seconds * 1000)}ms",
            ),
            *(f"-timeout={TIMEOUT:g}s", "-connections=2048", "-redirects=-1", "-max-body=0", "-http2=false", *how),
        ]
        results, into = os.pipe()
        try:
            first = await asyncio.create_subprocess_exec(*attack, stdout=into, stderr=asyncio.subprocess.PIPE)
        finally:
            os.close(into)
        rows = _Rows()
        try:
            second = await asyncio.create_subprocess_exec(
                self.program, "encode", "--to=csv", stdin=results, stdout=asyncio.subprocess.PIPE
            )
        finally:
            os.close(results)
        try:
            assert second.stdout is not None
            async for line in second.stdout:
                rows.add(line, counts)
            said = await first.communicate()
            status = (await first.wait(), await second.wait())
        finally:
            for process in (first, second):
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        if status != (0, 0):
            raise Unprocessable(f"vegeta failed: {said[1].decode(errors='replace').strip()[-500:]}", code="vegeta")
        return rows


@dataclass(slots=True)
class _Rows:
    """Results as they come: moments and latencies in nanoseconds."""

    moments: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[int] = field(default_factory=lambda: array("q"))
    latencies: array[int] = field(default_factory=lambda: array("q"))
    statuses: array[int] = field(default_factory=lambda: array("H"))
    kinds: list[str] = field(default_factory=list)

    def add(self, line: bytes, counts: Counts) -> None:
        """A line of vegeta's CSV: moment, status, latency, bytes out and in, error, body, attack, number, method, URL,
        headers.
        """
        fields = line.split(b",")
        method, url = (fields[-3], fields[-2])
        self.moments.append(int(fields[0]))
        self.statuses.append(int(fields[1]))
        self.latencies.append(int(fields[2]))
        self.numbers.append(int(fields[-4]))
        self.kinds.append(kind_of(method.decode(), urlsplit(url.decode()).path))
        counts.add(self.statuses[-1], self.latencies[-1] / 1e9)

    def samples(self, interval: float) -> Samples:
        """As samples. The n-th request was meant to start n intervals (s) after the attack's start, which is where no
        request would have started early; with an interval of 0 each was meant to start when it did.
        """
        found = Samples()
        step = interval * 1e9
        began = min(
            (moment - (number + 1) * step for moment, number in zip(self.moments, self.numbers, strict=True)),
            default=0.0,
        )
        for kind, moment, number, latency, status in zip(
            self.kinds, self.moments, self.numbers, self.latencies, self.statuses, strict=True
        ):
            meant = began + (number + 1) * step if step else float(moment)
            late = moment - meant
            found.add(Sample(kind, (meant - began) / 1e9, late / 1e9, (late + latency) / 1e9, status))
        return found


def find(given: Path | None) -> Path:
    """The program: the one given, or that of PATH. Raises Unprocessable without one."""
    found = str(given) if given is not None else shutil.which("vegeta")
    if found is None or not Path(found).is_file() or not os.access(found, os.X_OK):
        where = f"{given} is no program" if given is not None else "vegeta is not on the PATH"
        raise Unprocessable(
            f"{where}. Build it with: go install github.com/tsenart/vegeta/v12@v12.13.0, or in kgents' sources with "
            "scripts/vegeta, which prints what to give to --vegeta.",
            code="no-vegeta",
        )
    return Path(found)


@contextlib.asynccontextmanager
async def made(program: Path, url: str, requests: Sequence[Request]) -> AsyncIterator[Vegeta]:
    """A vegeta with these requests to `url`, in a file that only its owner may read and that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="kgents-load-") as folder:
        targets = Path(folder) / "targets"
        targets.write_text("".join(_target(url, request) + "\n" for request in requests))
        yield Vegeta(program, targets)


def _target(url: str, request: Request) -> str:
    headers = {"Authorization": [f"Bearer {request.key}"]}
    target = {"method": request.method, "url": url + request.path, "header": headers}
    if request.body:
        headers["Content-Type"] = ["application/json"]
        target["body"] = base64.b64encode(request.body).decode()
    return json.dumps(target)

"""The ledger of all runs: one JSON object a line, only ever added to, each with the hash of the line before.

A line that was changed, taken out or put in breaks the chain, and `verify` says where. Lines cut off at the end break
none: what was committed has to be there still, and the line that the checklist names.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kgents.clock import from_rfc3339, to_rfc3339
from kgents.errors import Unprocessable
from kgents.readiness.checkout import git
from kgents.readiness.model import Result, Verdict

START = 64 * "0"


def digest(value: Any) -> str:
    """The SHA-256 of a JSON value, in its one form: as it is read again, sorted keys, no spaces, UTF-8."""
    read_again = json.loads(json.dumps(value))
    return hashlib.sha256(_bytes(read_again, sort_keys=True, separators=(",", ":"))).hexdigest()


def _bytes(value: Any, **form: Any) -> bytes:
    """JSON in UTF-8. Half of a surrogate pair, which UTF-8 does not have, is escaped as JSON does it."""
    return json.dumps(value, ensure_ascii=False, **form).encode(errors="backslashreplace")


@dataclass(frozen=True, slots=True)
class Ledger:
    """`ledger.jsonl` in a folder, and beside it a file for each thing seen, named by its hash."""

    folder: Path

    @property
    def path(self) -> Path:
        """The ledger's file."""
        return self.folder / "ledger.jsonl"

    def keep(self, seen: Mapping[str, Any]) -> str:
        """Keep what a check saw, and answer its hash."""
        hash_ = digest(seen)
        path = self.folder / "seen" / f"{hash_}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(f".{secrets.token_hex(8)}")  # other threads may keep the same
            unfinished.write_bytes(_bytes(seen, sort_keys=True, indent=1) + b"\n")
            unfinished.rename(path)
        return hash_

    def seen(self, hash_: str) -> dict[str, Any]:
        """What a check saw, by its hash. Raises Unprocessable where it was not kept, or is not as it was."""
        path = self.folder / "seen" / f"{hash_}.json"
        try:
            seen: dict[str, Any] = json.loads(path.read_text())
            if digest(seen) == hash_:
                return seen
        except (OSError, ValueError):
            pass
        raise Unprocessable(f"What was seen is not there as it was: {path}", code="ledger")

    def add(self, kind: str, time: int, **fields: Any) -> str:
        """Add a line, and answer its hash. Several processes may add at once. Raises Unprocessable for a file that
        can't be written, or whose last line is not one of the ledger's.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                last = self._last(file.read())
                line = {"kind": kind, "at": to_rfc3339(time), **fields, "before": last}
                line["hash"] = digest(line)
                file.write(_bytes(line) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Unprocessable(
                f"{self.path} can't be written: {error.strerror}. Another folder: --ledger", code="ledger"
            ) from None
        return str(line["hash"])

    def result(self, result: Result, now: int, target: str, run: str) -> str:
        """Add what a criterion came to at a target, in a run; before any waiver."""
        return self.add(
            "result",
            now,
            run=run,
            target=target,
            criterion=result.criterion,
            verdict=result.verdict.value,
            detail=result.detail,
            seen_at=to_rfc3339(result.time),
            commit=result.commit,
            evidence=result.evidence,
            seconds=round(result.seconds, 1),
        )

    def lines(self) -> list[dict[str, Any]]:
        """All lines. Raises Unprocessable for one that is not the ledger's, and for a file that can't be read."""
        return list(self._lines())

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise Unprocessable(
                f"{self.path} can't be read: {error.strerror}. Another folder: --ledger", code="ledger"
            ) from None
        for number, text in enumerate(_split(content), 1):
            yield self._line(text, number)

    def _line(self, text: bytes, number: int) -> dict[str, Any]:
        try:
            line: dict[str, Any] = json.loads(text.decode())
            line["kind"], line["hash"], line["before"]
        except (ValueError, KeyError, TypeError):
            raise _broken(self.path, number, "is not one of the ledger's") from None
        return line

    def _last(self, content: bytes) -> str:
        lines = _split(content)
        if content and not content.endswith(b"\n"):
            raise _broken(self.path, len(lines), "was not written to its end")
        return str(self._line(lines[-1], len(lines))["hash"]) if lines else START

    def latest(self, target: str, *, but: Collection[Verdict] = ()) -> dict[str, Result]:
        """The last result of each criterion at a target; of those `but` for these verdicts."""
        return {
            line["criterion"]: Result(
                line["criterion"],
                Verdict(line["verdict"]),
                line["detail"],
                from_rfc3339(line["seen_at"]),
                line["commit"],
                line["evidence"],
                line["seconds"],
                earlier=True,
            )
            for line in self._lines()
            if line["kind"] == "result" and line["target"] == target and line["verdict"] not in but
        }

    def verify(self, known: str = "") -> int:
        """Check the chain, the hash of all that was kept, and that neither what was committed nor the line with the
        hash `known` is gone; answers the number of lines. Raises Unprocessable that says what is wrong with which line.
        """
        before, number, hashes = START, 0, {""}
        for number, line in enumerate(self._lines(), 1):
            if line["before"] != before:
                raise _broken(self.path, number, "does not follow the line before it")
            before = line.pop("hash")
            if digest(line) != before:
                raise _broken(self.path, number, "was changed")
            if line.get("evidence"):
                self._check_seen(line["evidence"], number)
            hashes.add(before)
        if not self._begins_as_committed():
            raise _broken(self.path, number, "is the last, and what was committed goes on or is another")
        if known not in hashes:
            raise _broken(self.path, number, f"is the last, and the checklist names one that is not there, {known}")
        return number

    def _begins_as_committed(self) -> bool:
        path = self.path.absolute()
        folder = next(each for each in path.parents if each.is_dir())
        committed = git(folder, "show", f"HEAD:./{path.relative_to(folder)}")
        if committed is None:
            return True
        return path.exists() and path.read_bytes().startswith(committed.encode(errors="surrogateescape"))

    def _check_seen(self, hash_: str, number: int) -> None:
        try:
            self.seen(hash_)
        except Unprocessable:
            raise _broken(self.path, number, f"tells of evidence that is not there as it was: {hash_}") from None


def _split(content: bytes) -> list[bytes]:
    """The lines. A line feed ends one and nothing else does: JSON may hold what splitlines() splits at, as U+2028."""
    return content.removesuffix(b"\n").split(b"\n") if content else []


def _broken(path: Path, number: int, what: str) -> Unprocessable:
    return Unprocessable(
        f"{path}, line {number}: it {what}. Bring back the file that was committed last: git checkout -- {path}",
        code="ledger",
    )

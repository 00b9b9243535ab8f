"""The licences of what is installed at run time, from its own metadata."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import Distribution

from kgents.scan.lock import installed
from kgents.scan.model import Finding, Scanned, Severity
from kgents.scan.subject import Subject

_DENIED = re.compile(
    r"(?<![A-Z])A?GPL|AFFERO|GENERAL PUBLIC LICEN|SSPL|SERVER SIDE PUBLIC|BUSL|BUSINESS SOURCE|ELASTIC-|POLYFORM|BY-NC"
    r"|COMMONS.CLAUSE|PROPRIETARY|NON.?COMMERCIAL|EUPL|EUROPEAN UNION PUBLIC|(?<![A-Z])(NP)?OSL-"
    r"|OPEN SOFTWARE LICEN|BY-SA"
)
_WEAK = re.compile(r"LGPL|LESSER GENERAL|LIBRARY GENERAL")
_TOKEN = re.compile(r"\(|\)|[^\s()]+")


def scan(subject: Subject) -> Scanned:
    """The packages that uv.lock gives kgents at run time with all extras, on this platform. Raises Broken."""
    packages = installed(subject.environment or subject.runtime())
    return Scanned(f"{len(packages)} packages", findings=judge(packages))


def judge(packages: Iterable[Distribution]) -> list[Finding]:
    """A finding for each package that is denied, weakly copyleft, or says nothing of its licence."""
    findings = []
    for package in packages:
        said, is_expression = licence_of(package)
        severity = verdict(said, is_expression=is_expression)
        if severity is not None:
            findings.append(
                Finding(
                    scanner="licences",
                    rule="no-licence" if not said else "lgpl" if severity is Severity.MEDIUM else "denied-licence",
                    where=f"{package.name} {package.version}",
                    severity=severity,
                    title=said or "it names no licence",
                )
            )
    return findings


def licence_of(package: Distribution) -> tuple[str, bool]:
    """A package's SPDX expression, else its classifiers, else the first line of its licence, "" for nothing; and
    whether it is an expression.
    """
    metadata = package.metadata
    expression = next(iter(metadata.get_all("License-Expression") or ()), "").strip()
    if expression:
        return expression, True
    classifiers = [
        name.rpartition("::")[2].strip()
        for name in metadata.get_all("Classifier") or ()
        if name.startswith("License ::") and name.count("::") > (1 if "OSI Approved" in name else 0)
    ]
    if classifiers:
        return " AND ".join(f"({name.replace('(', '').replace(')', '')})" for name in classifiers), False
    text = next(iter(metadata.get_all("License") or ()), "").strip()
    return "" if text.upper() == "UNKNOWN" else text.partition("\n")[0][:120], False


def verdict(said: str, *, is_expression: bool = False) -> Severity | None:
    """HIGH for what is denied or not said, MEDIUM for the LGPL, None for what is fine.

    Of an expression's alternatives (OR) the best counts, of its parts (AND) the worst. A denied licence stays so with
    an exception (WITH). Other words have no alternatives: "GPLv3 or later" is no choice.
    """
    if not said:
        return Severity.HIGH
    worst = _either(_TOKEN.findall(said)) if is_expression else _level([said])
    return (None, Severity.MEDIUM, Severity.HIGH)[worst]


def _either(tokens: list[str]) -> int:
    """0, 1 or 2, as good as the best alternative; takes its tokens away, and the parenthesis that closes it."""
    best = _all(tokens)
    while tokens and tokens[0].upper() == "OR":
        tokens.pop(0)
        best = min(best, _all(tokens))
    if tokens and tokens[0] == ")":
        tokens.pop(0)
    return best


def _all(tokens: list[str]) -> int:
    worst = 0
    words: list[str] = []
    while tokens and tokens[0] != ")" and tokens[0].upper() != "OR":
        token = tokens.pop(0)
        if token == "(":  # noqa: S105 - no password
            worst = max(worst, _either(tokens))
        elif token.upper() == "AND":
            worst = max(worst, _level(words))
            words = []
        else:
            words.append(token)
    return max(worst, _level(words))


def _level(words: list[str]) -> int:
    text = " ".join(words).upper()
    weak = _WEAK.search(text) is not None
    return 2 if _DENIED.search(_WEAK.sub("", text)) else int(weak)

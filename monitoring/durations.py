"""Times in rules, which tests shorten."""

from __future__ import annotations

from dataclasses import dataclass

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Times:
    """Writes times as Prometheus does. With a `factor`, each is that many times shorter: for a test that breaks
    something and waits for the alert. In production it is 1.
    """

    factor: int = 1

    def __call__(self, text: str) -> str:
        """A time such as `5m`, shortened."""
        milliseconds = round(self.seconds(text) * 1000)
        for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
            if milliseconds % length == 0:
                return f"{milliseconds // length}{unit}"
        return f"{milliseconds}ms"

    def seconds(self, text: str) -> float:
        """The same as seconds."""
        return int(text[:-1]) * _UNITS[text[-1]] / self.factor

    def number(self, text: str) -> str:
        """The same as a number of seconds, to compare with."""
        return f"{self.seconds(text):g}"

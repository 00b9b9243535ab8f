"""What the pods of a kgents in a cluster log."""

from __future__ import annotations

import queue
import subprocess
import threading
import time
from collections.abc import Generator, Iterator

from kgents.clock import SystemClock, to_rfc3339
from kgents.deploy.kubectl import Kubectl, Object

SELECTOR = "app.kubernetes.io/name=kgents"
AT_FIRST = 1000  # lines of each pod, where no time is given
LOOK = 2.0  # seconds after which pods are looked for that have started meanwhile


class PodLogs:
    """The logs of the API's and the workers' pods, by the pod's name."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self._kubectl = kubectl
        self._namespace = namespace
        self._followed: dict[str, subprocess.Popen[str]] = {}
        self._clock = SystemClock()
        self._ended: dict[str, int] = {}
        self._lines: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()

    def past(self, since: int) -> Iterator[tuple[str, Iterator[str]]]:
        """What each wrote since then (microseconds; 0: its last thousand lines) and until now. Raises Refused."""
        which = [f"--since-time={to_rfc3339(since)}", "--tail=-1"] if since else [f"--tail={AT_FIRST}"]
        for pod in self._pods():
            yield pod, iter(self._kubectl.logs(self._namespace, pod, *which).splitlines())

    def following(self, since: int, seconds: float) -> Generator[list[tuple[str, str]]]:
        """What they write from then on (microseconds), as it comes, gathered for so many seconds; also that of pods
        that start meanwhile. Raises Refused. Close it to end it.
        """
        looked = 0.0
        try:
            while True:
                if time.monotonic() - looked > LOOK:
                    looked = time.monotonic()
                    self._look(since)
                time.sleep(seconds)
                yield [self._lines.get() for _ in range(self._lines.qsize())]
        finally:
            for process in self._followed.values():
                process.terminate()
            for process in self._followed.values():
                process.wait(10)

    def _look(self, since: int) -> None:
        for pod in self._pods():
            if pod in self._followed and self._followed[pod].poll() is None:
                continue
            # One whose kubectl ended, since its container was started again or the connection broke, is asked again.
            start = self._ended.pop(pod, since)
            process = self._kubectl.follow_logs(self._namespace, pod, f"--since-time={to_rfc3339(start)}")
            self._followed[pod] = process
            threading.Thread(target=self._read, args=(pod, process), daemon=True).start()

    def _read(self, pod: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._lines.put((pod, line.rstrip("\n")))
        self._ended[pod] = self._clock.now()

    def _pods(self) -> list[str]:
        pods = self._kubectl.list("pod", self._namespace, SELECTOR)
        return [pod["metadata"]["name"] for pod in pods if _began(pod)]


def _began(pod: Object) -> bool:
    """Whether a container of it was ever started, and so has a log."""
    containers = pod["status"].get("containerStatuses") or ()
    return any("waiting" not in each["state"] or each["restartCount"] for each in containers)

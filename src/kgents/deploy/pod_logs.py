"""What the pods of a kgents in a cluster log."""

from __future__ import annotations

import queue
import re
import subprocess
import threading
import time
from collections.abc import Generator, Iterable, Iterator

from kgents.clock import SECOND, from_rfc3339, to_rfc3339
from kgents.deploy.kubectl import Kubectl, Object, Refused

SELECTOR = "app.kubernetes.io/name=kgents"
AT_FIRST = 1000  # lines of each pod, where neither a time is given nor something is looked for
LOOK = 2.0  # seconds after which pods are looked for that have started meanwhile
_STAMPED = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.(\d+))?(?:Z|[+-]\d\d:\d\d)) ?(.*)", re.DOTALL)


class PodLogs:
    """The logs of the API's and the workers' pods, by the pod's name. The time that the kubelet gives each line says up
    to where a pod was read.
    """

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self._kubectl = kubectl
        self._namespace = namespace
        self._since = 0
        self._last: dict[str, str] = {}  # of each pod that was read
        self._followed: dict[str, tuple[subprocess.Popen[str], threading.Thread]] = {}
        self._lines: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()

    def past(self, since: int, *, every: bool) -> Iterator[tuple[str, Iterator[str]]]:
        """What each wrote since then (microseconds; 0: its last thousand lines, or every line) and until now. Raises
        Refused.
        """
        self._since = since
        which = [f"--tail={-1 if since or every else AT_FIRST}"]
        for pod in self._pods():
            text = self._kubectl.logs(self._namespace, pod, "--timestamps", *which, *self._from(pod))
            yield pod, iter([self._taken(pod, line) for line in text.split("\n")[:-1]])

    def following(self, seconds: float) -> Generator[list[tuple[str, str]]]:
        """What they write after that, as it comes, gathered for so many seconds; also that of pods that start
        meanwhile. Raises Refused. Close it to end it.
        """
        looked = 0.0
        try:
            while True:
                if time.monotonic() - looked > LOOK:
                    looked = time.monotonic()
                    self._look()
                time.sleep(seconds)
                yield [self._lines.get() for _ in range(self._lines.qsize())]
        finally:
            for process, _ in self._followed.values():
                process.terminate()
            for process, _ in self._followed.values():
                process.wait(10)

    def _look(self) -> None:
        for pod in self._pods():
            if pod in self._followed:
                before, reader = self._followed[pod]
                if reader.is_alive():
                    continue
                before.wait(10)
            # One whose kubectl ended, since its container was started again or the connection broke, is asked again.
            process = self._kubectl.follow_logs(self._namespace, pod, "--timestamps", *self._from(pod))
            thread = threading.Thread(target=self._read, args=(pod, process), daemon=True)
            self._followed[pod] = process, thread
            thread.start()

    def _read(self, pod: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in _after(_moment(self._last.get(pod, "")), process.stdout):
                self._lines.put((pod, self._taken(pod, line)))

    def _taken(self, pod: str, line: str) -> str:
        """The line as the pod wrote it."""
        found = _STAMPED.fullmatch(line)
        if found is None:  # kubectl's own
            return line
        self._last[pod] = found[1]
        return found[3]

    def _from(self, pod: str) -> list[str]:
        start = self._last.get(pod) or (to_rfc3339(self._since) if self._since else "")
        return [f"--since-time={start}"] if start else []

    def _pods(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in pods_of(self._kubectl, self._namespace) if _began(pod)]


def pods_of(kubectl: Kubectl, namespace: str) -> list[Object]:
    """The API's and the workers' pods. Raises Refused where there are none."""
    pods = kubectl.list("pod", namespace, SELECTOR)
    if not pods:
        raise Refused(
            f"There are no pods of a kgents in {namespace}. Name its namespace with --namespace, or kubectl's context "
            "with --kube-context.",
            code="cluster",
        )
    return [*pods]


def _after(read: int, lines: Iterable[str]) -> Iterator[str]:
    """The whole lines without those up to a moment: a cluster counts in seconds when it is asked from a time on."""
    for line in lines:
        if not line.endswith("\n"):
            return  # the connection broke
        if read and _moment(line) <= read:
            continue
        read = 0
        yield line.rstrip("\n")


def _moment(line: str) -> int:
    """When a line was written, in nanoseconds; 0 where that is not told."""
    found = _STAMPED.fullmatch(line)
    if found is None:
        return 0
    return from_rfc3339(found[1]) // SECOND * 1_000_000_000 + int((found[2] or "0")[:9].ljust(9, "0"))


def _began(pod: Object) -> bool:
    """Whether a container of it was ever started, and so has a log."""
    containers = pod["status"].get("containerStatuses") or ()
    return any("waiting" not in each["state"] or each["restartCount"] for each in containers)

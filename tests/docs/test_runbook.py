"""The runbook: its commands work, and they mend what alerts tell of, on a kgents that is broken on purpose."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from monitoring import rules
from monitoring.durations import Times
from tests.support.documents import ROOT, blocks, typed
from tests.support.prometheus import Prometheus, job_of
from tests.support.up import Up
from tests.support.waiting import wait_until

RUNBOOK = "docs/saas/runbook.md"
FACTOR = 60  # times that windows and waits are shorter than in production: a minute is a second
HELLO = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}
HEADINGS = re.findall(r"^#+ .*$", (ROOT / RUNBOOK).read_text(), re.MULTILINE)[1:]
SECTIONS = {heading: found for heading in HEADINGS if (found := blocks(RUNBOOK, "sh", heading))}
LOCKING = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('BEGIN IMMEDIATE'); print(1, flush=True); input()"
Breaking = Callable[["Watched"], None]


@dataclass(frozen=True, slots=True)
class Watched:
    """A kgents, and a Prometheus with the real rules that looks at it. `mending` is what an operator does that is in no
    block, `ending` what is done when the test ends.
    """

    up: Up
    prometheus: Prometheus
    mending: ExitStack
    ending: ExitStack

    def follow(self, section: str) -> None:
        """Type what a section of the runbook says."""
        for block in SECTIONS[section]:
            done = typed(block, self._environment(), seconds=60)
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "KGENTS_URL": self.up.url,
            "KGENTS_API_KEY": self.up.key,
            "KGENTS_ADMIN_KEY": self.up.admin_key,
            "KGENTS_DATA_DIR": str(self.up.data),
            "PROMETHEUS_URL": self.prometheus.url,
        }


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Up, Prometheus]]:
    folder = tmp_path_factory.mktemp("runbook")
    up = Up(folder / "data", environment={"KGENTS_RECONCILE_INTERVAL": "1"}).start()
    prometheus = Prometheus(folder / "prometheus", [job_of(up.facts)], rules.groups(Times(FACTOR)))
    yield up, prometheus
    prometheus.stop()
    up.stop()


@pytest.fixture
def watched(running: tuple[Up, Prometheus]) -> Iterator[Watched]:
    """That kgents, well, with nothing on its way to the meter."""
    up, prometheus = running
    wait_until(lambda: up.health()["status"] == "ok", seconds=60, what="all is well")
    up.settled()
    with ExitStack() as ending:
        yield Watched(up, prometheus, ending.enter_context(ExitStack()), ending)


@contextmanager
def in_use(up: Up) -> Iterator[None]:
    """Somebody asks all the time, whatever comes of it."""
    over = threading.Event()

    def ask() -> None:
        with up.client() as client:
            while not over.wait(0.2):
                try:
                    client.post("/v1/chat/completions", json=HELLO, timeout=10)
                    client.get("/v1/agents", timeout=10)
                except httpx2.HTTPError:
                    continue

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in asking:
            thread.join()


def freeze(process: str) -> Breaking:
    return lambda watched: os.kill(watched.up.pid(process), signal.SIGSTOP)


def freeze_the_meter_in_use(watched: Watched) -> None:
    """Usage comes, and the meter does not take it."""
    watched.ending.enter_context(in_use(watched.up))
    freeze("meter")(watched)


def lose_an_event(watched: Watched) -> None:
    """The ledger has an event of the hour before that the meter was never told of."""
    with sqlite3.connect(watched.up.data / "kgents.db", timeout=30) as database:
        database.execute(
            "INSERT INTO usage_events SELECT event_id || ':lost', tenant_id, meter, 7, run_id, agent_id, model,"
            " estimated, occurred_at - 3600000000 FROM usage_events WHERE meter = 'input_tokens'"
            " ORDER BY event_id DESC LIMIT 1"
        )
    database.close()


def lock_the_database(watched: Watched) -> None:
    """Another program holds SQLite's one write lock, until its end: the operator ends it."""
    watched.ending.enter_context(in_use(watched.up))
    other = subprocess.Popen(
        [sys.executable, "-c", LOCKING, watched.up.data / "kgents.db"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert other.stdout.readline()
    watched.ending.callback(other.communicate)
    watched.mending.callback(other.kill)


BROKEN: dict[str, Breaking] = {
    "KgentsMeterAway": freeze_the_meter_in_use,
    "KgentsWorkerAbsent": freeze("worker"),
    "KgentsReconcileDifference": lose_an_event,
    "KgentsBusAway": freeze("nats"),
    "KgentsAvailabilityBurn": lock_the_database,
}


@pytest.mark.parametrize("section", [each for each in SECTIONS if each.removeprefix("### ") not in BROKEN])
def test_the_blocks_of_a_section_work(watched: Watched, section: str) -> None:
    watched.follow(section)


@pytest.mark.parametrize("alert", BROKEN)
def test_what_is_broken_on_purpose_fires_is_mended_by_the_runbook_and_ends(watched: Watched, alert: str) -> None:
    urgent = (alert, "page")  # a ticket on an error budget ends hours later
    BROKEN[alert](watched)
    wait_until(lambda: urgent in watched.prometheus.firing(), seconds=60, what=f"{alert} fires")
    watched.follow(f"### {alert}")
    watched.mending.close()
    wait_until(lambda: urgent not in watched.prometheus.firing(), seconds=90, what=f"{alert} ends")


def test_the_runbook_tells_what_the_tests_break() -> None:
    table = (ROOT / RUNBOOK).read_text().rpartition("| how it is broken |")[2]
    assert set(re.findall(r"^\| (Kgents\w+) \|", table, re.MULTILINE)) == set(BROKEN)


def test_a_cluster_s_commands_need_no_program_in_an_image_and_read_the_pod_that_is_meant() -> None:
    commands = "\n".join(blocks(RUNBOOK, ""))
    assert "port-forward" in commands
    assert " exec " not in commands
    assert " logs daemonset/" not in commands


def test_every_alert_has_its_section_and_every_section_an_alert() -> None:
    alerts = {
        (rule["alert"], rule["annotations"]["runbook_url"])
        for group in rules.groups()
        for rule in group["rules"]
        if "alert" in rule
    }
    sections = {heading.removeprefix("### ") for heading in HEADINGS if heading.startswith("### Kgents")}
    assert alerts == {(name, f"{RUNBOOK}#{name.lower()}") for name in sections}
    text = (ROOT / RUNBOOK).read_text()
    for name in sections:
        section = text.partition(f"\n### {name}\n")[2].partition("\n#")[0]
        for part in ("**Means.**", "**See.**", "**Do.**", "**Over when**"):
            assert part in section, f"{name} has no {part}"

"""The log collector reads what containers write, and sends each line with few labels, through outages."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitoring.external import COLLECTOR, EXTERNAL
from tests.support.log_collector import NODE, Collector, collecting
from tests.support.log_store import LogStore
from tests.support.manifests import pod_of, rendered
from tests.support.pod_logs import ContainerLog
from tests.support.waiting import wait_until

API = "kgents-api-7d9c4b5f6c-x2x4z"
LABELS = {"namespace", "app", "component", "level"}
IDENTITY = {"namespace": "kgents-agents", "app": "kgents", "component": "api"}
ACCEPTED = "otelcol_receiver_accepted_log_records"
MIB = 1024 * 1024


@pytest.fixture
def store() -> Iterator[LogStore]:
    made = LogStore()
    yield made
    made.stop()
    assert made.refused == []


@pytest.fixture
def collector(tmp_path: Path, store: LogStore) -> Iterator[Collector]:
    with collecting(tmp_path, store) as made:
        yield made


def arrived(store: LogStore, count: int, seconds: float = 20) -> list[str]:
    """The lines, once there are so many."""
    wait_until(lambda: len(store.lines) >= count, seconds=seconds, what=f"{count} lines of {len(store.lines)}")
    return store.texts


def numbered(first: int, last: int, **more: Any) -> list[str]:
    return [json.dumps({"event": "test", "level": "info", "number": number, **more}) for number in range(first, last)]


def test_a_line_of_ours_has_four_labels_and_its_ids_beside_them(collector: Collector, store: LogStore) -> None:
    ids = {
        "tenant_id": "ten_1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
        "request_id": "req_1",
        "run_id": "run_1",
    }
    text = json.dumps({**ids, "event": "request", "level": "warning", "route": "/v1/agents"})
    ContainerLog(collector.pods, API, "api").write(text)
    arrived(store, 1)
    line = store.lines[0]
    assert line.text == text
    assert line.labels == IDENTITY | {"level": "warning"}
    assert line.metadata == ids | {"node": NODE, "pod": API, "stream": "stdout"}
    assert line.time > 0


@pytest.mark.parametrize("overlay", ["production", "conformance"])
def test_app_and_component_are_those_of_the_labels_in_kubernetes(
    collector: Collector, store: LogStore, overlay: str
) -> None:
    """For every workload, by a pod's name as its controller makes it."""
    suffixes = {
        "Deployment": "-7d9c4b5f6c-x2x4z",
        "StatefulSet": "-0",
        "CronJob": "-29384720-x2x4z",
        "Job": "-x2x4z",
    }
    wanted = []
    for each in rendered(overlay):
        pod = pod_of(each)
        if pod is None or each["metadata"]["namespace"] != "kgents-agents":
            continue
        template = each["spec"].get("jobTemplate", each)["spec"]["template"]
        labels = template["metadata"]["labels"]
        for container in pod["containers"]:
            log = ContainerLog(collector.pods, each["metadata"]["name"] + suffixes[each["kind"]], container["name"])
            log.write("hello")
            component = labels.get("app.kubernetes.io/component", container["name"])
            wanted.append((labels["app.kubernetes.io/name"], component))
    arrived(store, len(wanted))
    assert len(wanted) > 5
    assert Counter((line.labels["app"], line.labels["component"]) for line in store.lines) == Counter(wanted)


def test_the_level_is_one_of_ours_or_unknown(collector: Collector, store: LogStore) -> None:
    ours = {json.dumps({"level": level}): level for level in ("debug", "info", "warning", "error", "critical")}
    others = (
        '{"level":"user-4711"}',
        '{"level":{"a":1}}',
        '{"event":"without one"}',
        "[1] 2026/11/26 23:00:00.000000 [INF] Server is ready",
        '{"level":"info"',
        "",
    )
    wanted = ours | dict.fromkeys(others, "unknown")
    ContainerLog(collector.pods, API, "api").write(*wanted)
    arrived(store, len(wanted))
    assert {line.text: line.labels["level"] for line in store.lines} == wanted


def test_a_line_that_the_runtime_cut_is_whole_again(collector: Collector, store: LogStore) -> None:
    text = json.dumps({"level": "error", "text": "a" * 100_000})
    ContainerLog(collector.pods, API, "api").write(text, "next")
    assert sorted(arrived(store, 2)) == sorted([text, "next"])
    assert {line.labels["level"] for line in store.lines} == {"error", "unknown"}


def test_a_line_of_megabytes_comes_in_pieces_that_loki_takes(collector: Collector, store: LogStore) -> None:
    text = "".join(f"{number:08}" for number in range(400_000))
    ContainerLog(collector.pods, API, "api").write(text)
    wait_until(lambda: sum(map(len, store.texts)) >= len(text), seconds=20)
    pieces = sorted(store.lines, key=lambda line: line.time)
    assert "".join(piece.text for piece in pieces) == text
    assert max(len(piece.text.encode()) for piece in pieces) <= 256 * 1024


def test_a_torn_line_stops_nothing(collector: Collector, store: LogStore) -> None:
    log = ContainerLog(collector.pods, API, "api")
    log.write("before")
    log.raw(b"\0\0\0torn\n")
    log.write("after")
    assert {"before", "after"} <= set(arrived(store, 3))
    assert all(set(line.labels) == LABELS for line in store.lines)


def test_other_namespaces_are_not_read(collector: Collector, store: LogStore) -> None:
    for namespace in ("default", "kgents-logs", "kube-system", "x_kgents-agents"):
        ContainerLog(collector.pods, API, "api", namespace).write("not ours")
    ContainerLog(collector.pods, API, "api").write("ours")
    arrived(store, 1)
    collector.stop()
    assert store.texts == ["ours"]


def test_rotation_loses_and_repeats_nothing(collector: Collector, store: LogStore) -> None:
    log = ContainerLog(collector.pods, API, "api")
    for part in range(4):
        log.write(*numbered(part * 500, part * 500 + 500))
        arrived(store, part * 500 + 250)  # somewhere in the file
        log.rotate()
    log.write(*numbered(2000, 2100))
    assert sorted(arrived(store, 2100)) == sorted(numbered(0, 2100))


def test_what_was_written_and_put_aside_while_it_was_down_arrives(collector: Collector, store: LogStore) -> None:
    log = ContainerLog(collector.pods, API, "api")
    log.write(*numbered(0, 100))
    arrived(store, 100)
    collector.stop()
    log.write(*numbered(100, 200))
    log.rotate()
    log.write(*numbered(200, 300))
    collector.start()
    assert sorted(arrived(store, 300)) == sorted(numbered(0, 300))


def test_an_outage_and_kills_lose_nothing(collector: Collector, store: LogStore) -> None:
    log = ContainerLog(collector.pods, API, "api")
    log.write(*numbered(0, 300))
    arrived(store, 300)
    store.stop()
    for part in range(1, 8):
        log.write(*numbered(part * 300, part * 300 + 300))
        if part == 4:
            log.rotate()
        # At another point each time: before a line was read, while some were, and when they are in the queue.
        wait_until(lambda least=part % 4 * 100: collector.metric(ACCEPTED) >= least)
        collector.kill()
        collector.start()
    store.start()
    wanted = set(numbered(0, 2400))
    wait_until(lambda: wanted <= set(store.texts), seconds=30)
    assert set(store.texts) == wanted


def test_the_queue_is_bounded_and_the_rest_waits_in_the_files(tmp_path: Path, store: LogStore) -> None:
    queue = 2 * MIB
    store.stop()
    with collecting(tmp_path, store, {"exporters": {"otlp_http": {"sending_queue": {"queue_size": queue}}}}) as made:
        log = ContainerLog(made.pods, API, "api")
        lines = numbered(0, 12_000, text="x" * 1000)
        log.write(*lines)
        wait_until(lambda: made.metric("otelcol_exporter_queue_size") > 0.8 * queue, seconds=30)
        most = made.on_disk()
        assert sum(map(len, lines)) > 5 * queue
        store.start()
        assert sorted(arrived(store, len(lines), seconds=60)) == sorted(lines)
        most = max(most, made.on_disk())
    assert most < 5 * queue


class Refusing(LogStore):
    """One that takes no line, now or later."""

    def take(self, *_: Any) -> int:
        return 400


def test_what_rules_ask_of_its_metrics_is_there_once_lines_are_lost(tmp_path: Path) -> None:
    store = Refusing()
    with collecting(tmp_path, store) as made:
        ContainerLog(made.pods, API, "api").write(*numbered(0, 10))
        wait_until(lambda: made.metric("otelcol_exporter_send_failed_log_records") == 10, seconds=20)
        series = made.series()
    store.stop()
    for metric in EXTERNAL.values():
        if metric.source == COLLECTOR:
            found = [labels for name, labels, _ in series if name == metric.name]
            assert found, metric.name
            # Prometheus adds where it is from.
            assert all(metric.labels - {"namespace", "pod"} <= labels for labels in found), metric.name


def test_memory_is_bounded_while_more_comes_than_is_taken(tmp_path: Path) -> None:
    slow = LogStore(seconds=0.2)
    with collecting(tmp_path, slow) as made:
        lines = numbered(0, 40_000, text="x" * 1000)
        logs = [ContainerLog(made.pods, f"kgents-api-7d9c4b5f6c-x2x4{letter}", "api") for letter in "bcdf"]
        for number, log in enumerate(logs):
            log.write(*lines[number :: len(logs)])
        seen = [made.memory()]

        def done() -> bool:
            seen.append(made.memory())
            return len(slow.lines) >= len(lines)

        wait_until(done, seconds=120)
    slow.stop()
    assert slow.refused == []
    assert sorted(slow.texts) == sorted(lines)
    assert max(seen) < 256 * MIB, f"{max(seen) / MIB:.0f} MiB; its container has 256"

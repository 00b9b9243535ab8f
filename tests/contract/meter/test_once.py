"""What was answered 204 is counted, and counted once: in order, at once, across restarts and crashes."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.contract.meter.process import MeterProcess, event, send
from tests.support.waiting import wait_until


def test_the_same_event_counts_once_across_restarts(meter: MeterProcess) -> None:
    for _ in range(3):
        with meter.http() as http:
            assert send(http, [event("a", 5), event("a", 5), event("b", 7)]).status_code == 204
        meter.stop()
        meter.start()
    assert meter.totals() == {"ten_1": 12}


def test_the_same_event_counts_once_when_many_send_it_at_once(meter: MeterProcess) -> None:
    def deliver(_: int) -> int:
        with meter.http() as http:
            return send(http, [event(str(number), number) for number in range(100)]).status_code

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(deliver, range(48))) == {204}
    assert meter.totals() == {"ten_1": sum(range(100))}


def test_the_first_of_two_events_with_one_id_is_the_one(meter: MeterProcess) -> None:
    with meter.http() as http:
        send(http, [event("a", 5)])
        send(http, [event("a", 1000, subject="ten_2")])
    assert meter.totals() == {"ten_1": 5}


def test_an_id_of_another_source_is_another_event(meter: MeterProcess) -> None:
    with meter.http() as http:
        send(http, [event("a", 5), event("a", 6, source="other")])
    assert meter.totals() == {"ten_1": 11}


def test_a_batch_with_one_bad_event_is_refused_as_a_whole(meter: MeterProcess) -> None:
    with meter.http() as http:
        refusal = send(http, [event("a", 5), event("b", -1)])
    assert (refusal.status_code, refusal.json()["detail"].startswith("event 1: data.quantity")) == (400, True)
    assert meter.totals() == {}


def test_a_sum_beyond_64_bits_is_exact(meter: MeterProcess) -> None:
    most = 2**63 - 1
    with meter.http() as http:
        assert send(http, [event(str(number), most) for number in range(5)]).status_code == 204
        assert send(http, [event("last", 3)]).status_code == 204
    assert meter.totals() == {"ten_1": 5 * most + 3}


@pytest.mark.parametrize("attempt", range(3))
def test_nothing_answered_204_is_lost_when_the_process_is_killed(meter: MeterProcess, attempt: int) -> None:
    numbers = itertools.count()
    accepted: dict[str, int] = {}
    in_doubt: list[list[dict[str, object]]] = []
    lock = threading.Lock()

    def deliver_until_it_dies() -> None:
        with meter.http() as http:
            while True:
                events = [event(f"e{number}", number % 1000) for number in itertools.islice(numbers, 20)]
                try:
                    answered = send(http, events).status_code == 204
                except httpx2.TransportError:
                    answered = False
                with lock:
                    if not answered:
                        in_doubt.append(events)
                        return
                    accepted.update({item["id"]: item["data"]["quantity"] for item in events})

    workers = [threading.Thread(target=deliver_until_it_dies) for _ in range(8)]
    for worker in workers:
        worker.start()
    wait_until(lambda: len(accepted) > 2000 * (attempt + 1), what="events are being accepted")
    meter.kill()
    for worker in workers:
        worker.join()

    meter.start()
    possible = sum(item["data"]["quantity"] for events in in_doubt for item in events)  # type: ignore[index]
    after_the_crash = meter.totals()["ten_1"]
    assert sum(accepted.values()) <= after_the_crash <= sum(accepted.values()) + possible
    with meter.http() as http:
        for events in in_doubt:  # whoever was not answered sends again
            assert send(http, events).status_code == 204
    assert meter.totals() == {"ten_1": sum(accepted.values()) + possible}


def test_what_is_in_flight_when_the_process_is_stopped_is_answered_truly(meter: MeterProcess) -> None:
    answers: dict[int, int] = {}

    def deliver(number: int) -> None:
        with meter.http() as http:
            try:
                answers[number] = send(http, [event(f"{number}-{part}") for part in range(200)]).status_code
            except httpx2.TransportError:
                answers[number] = 0

    with ThreadPoolExecutor(8) as pool:
        deliveries = [pool.submit(deliver, number) for number in range(60)]
        wait_until(lambda: sum(status == 204 for status in answers.values()) > 5, what="events are being accepted")
        meter.stop()
        for delivery in deliveries:
            delivery.result()
    meter.start()
    kept = meter.totals()["ten_1"]
    sure = 200 * sum(status == 204 for status in answers.values())
    assert sure <= kept <= sure + 200 * sum(status != 204 for status in answers.values())

"""What processes took, from looks at them."""

from __future__ import annotations

import httpx2
import pytest

from kgents.load.resources import POINTS, Course, Pages, Use


def test_cores_and_memory_over_a_course():
    course = Course()
    for second, cpu, memory in ((0.0, 1.0, 100.0), (1.0, 1.5, 130.0), (3.0, 3.5, 120.0)):
        course.add(second, {"api": Use("pid 7", cpu, memory)})

    assert course.figures()["api"] == {
        "cpu_seconds": 2.5,
        "cores": 0.833,
        "most_cores": 1.0,
        "most_memory_mib": 130.0,
        "memory_growth_mib": 20.0,
    }


def test_a_process_that_was_there_for_a_part_is_told_of_that_part():
    course = Course()
    course.add(0.0, {})
    course.add(1.0, {"worker": Use("pid 8", 5.0, 50.0)})
    course.add(2.0, {"worker": Use("pid 8", 5.2, 50.0)})

    assert course.figures()["worker"]["cores"] == 0.2


def test_a_long_course_is_thinned_out_and_keeps_its_ends():
    course = Course()
    for second in range(100_000):
        course.add(float(second), {"api": Use("pid 7", second / 2, 100.0)})

    assert len(course.seconds) <= 2 * POINTS
    assert course.figures()["api"]["cores"] == 0.5


class Processes:
    """Pages of metrics by their URL: the kind of a process, its CPU seconds and its memory (MiB)."""

    def __init__(self, **pages: tuple[str, float, float]) -> None:
        self.pages = pages

    def get(self, url: str, **_: object) -> httpx2.Response:
        if url not in self.pages:
            raise httpx2.ConnectError("away")
        kind, cpu, memory = self.pages[url]
        text = (
            f'kgents_build_info{{process="{kind}",version="1"}} 1\nprocess_start_time_seconds 7\n'
            f"process_cpu_seconds_total {cpu}\nprocess_resident_memory_bytes {memory * 1024**2}\n"
        )
        return httpx2.Response(200, text=text, request=httpx2.Request("GET", "http://pod"))


def test_pages_of_one_kind_are_each_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch):
    processes = Processes(a=("api", 1.0, 100.0), b=("api", 2.0, 200.0), c=("worker", 3.0, 300.0))
    monkeypatch.setattr(httpx2, "get", processes.get)

    found = Pages(["a", "b", "c"]).look()

    assert {name: (use.cpu, use.memory) for name, use in found.items()} == {
        "kgents-api-1": (1.0, 100.0),
        "kgents-api-2": (2.0, 200.0),
        "worker": (3.0, 300.0),
    }


def test_a_page_that_does_not_answer_for_once_changes_no_others_name(monkeypatch: pytest.MonkeyPatch):
    processes = Processes(a=("api", 1.0, 100.0), b=("api", 2.0, 200.0))
    monkeypatch.setattr(httpx2, "get", processes.get)
    pages = Pages(["a", "b"])
    pages.look()
    del processes.pages["a"]

    assert {name: use.cpu for name, use in pages.look().items()} == {"kgents-api-2": 2.0}


def test_a_page_that_is_given_twice_is_one_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(httpx2, "get", Processes(a=("api", 1.0, 100.0)).get)

    assert set(Pages(["a", "a"]).look()) == {"api"}


def test_a_page_that_is_not_of_kgents_is_no_process(monkeypatch: pytest.MonkeyPatch):
    def other(*_: object, **__: object) -> httpx2.Response:
        return httpx2.Response(200, text="up 1\n", request=httpx2.Request("GET", "http://prometheus"))

    monkeypatch.setattr(httpx2, "get", other)

    assert Pages(["a"]).look() == {}

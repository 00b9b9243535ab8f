"""What processes took, from looks at them."""

from __future__ import annotations

from kgents.load.resources import POINTS, Course, Use


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

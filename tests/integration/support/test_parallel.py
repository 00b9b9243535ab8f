"""The plugin that shares tests out runs those alone, and last, that a busy machine would fail."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from cluster.namespace import start_of
from tests.support import parallel

FILES = {"quiet": parallel.QUIET[0], "calm": parallel.QUIET[1], "still": parallel.QUIET[-1]}
ROOT = Path(parallel.__file__).parents[2]
SOURCE = """
import os, pytest
@pytest.mark.parametrize("number", range({count}))
def test_it(number):
    with open("order", "a") as order:
        order.write("{name} " + os.environ["PYTEST_XDIST_WORKER"] + "\\n")
"""

BUILDER = """
import time
end = time.monotonic() + 60
while not open("order").read() and time.monotonic() < end:
    time.sleep(0.05)
time.sleep(1)  # in which who doesn't wait would be there
open("order", "a").write("built -\\n")
"""


def run(project: Path, processes: int, preparing: str = "", **counts: int) -> list[list[str]]:
    """The tests in the order in which they ran: folder and process."""
    (project / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    for name, count in counts.items():
        file = project / FILES.get(name, f"tests/{name}/test_it.py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(SOURCE.format(name=name, count=count))
    command = [sys.executable, "-m", "pytest", "-p", "xdist", "-p", "tests.support.parallel", "-n", str(processes)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment["KGENTS_PREPARING"] = preparing
    command += ["-p", "no:cacheprovider", "--import-mode=importlib"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.split() for line in (project / "order").read_text().splitlines()]


def test_what_is_alone_comes_after_all_others_in_one_process(tmp_path: Path) -> None:
    order = run(tmp_path, 2, contract=7, cluster=4, unit=30)
    assert sorted(folder for folder, _ in order) == ["cluster"] * 4 + ["contract"] * 7 + ["unit"] * 30
    assert [folder for folder, _ in order[-4:]] == ["cluster"] * 4
    assert len({process for _, process in order[-4:]}) == 1


def test_what_is_quiet_comes_between_beside_each_other(tmp_path: Path) -> None:
    order = run(tmp_path, 2, quiet=6, calm=6, cluster=3, contract=20, unit=20)
    folders = [folder for folder, _ in order]
    quiet = [place for place, folder in enumerate(folders) if folder in ("quiet", "calm")]
    assert len(order) == 55
    assert folders[-3:] == ["cluster"] * 3
    assert quiet[0] >= 40 - 2 * parallel.FEW  # each process has a few of the others left
    assert {process for folder, process in order if folder in ("quiet", "calm")} == {"gw0", "gw1"}


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_whatever_there_is_is_run_once(tmp_path: Path, processes: int) -> None:
    for number, counts in enumerate(
        ({"quiet": 1}, {"quiet": 1, "cluster": 1}, {"quiet": 3, "calm": 3, "still": 1}, {"unit": 1, "still": 4})
    ):
        (project := tmp_path / str(number)).mkdir()
        assert Counter(folder for folder, _ in run(project, processes, **counts)) == counts


def test_a_file_is_run_by_one_process(tmp_path: Path) -> None:
    order = run(tmp_path, 3, contract=5, cluster=1, fuzz=5, unit=5)
    for folder in ("contract", "fuzz", "unit"):
        assert len({process for name, process in order if name == folder}) == 1


def test_only_what_is_alone(tmp_path: Path) -> None:
    assert [folder for folder, _ in run(tmp_path, 2, cluster=3)] == ["cluster"] * 3


def test_what_is_alone_waits_for_the_builder_to_end(tmp_path: Path) -> None:
    (tmp_path / "order").touch()
    with subprocess.Popen([sys.executable, "-c", BUILDER], cwd=tmp_path) as builder:
        order = run(tmp_path, 2, f"{builder.pid} {start_of(builder.pid)}", cluster=1, unit=1)
    assert [folder for folder, _ in order] == ["unit", "built", "cluster"]


def test_nobody_waits_for_a_process_that_got_the_number_of_the_builder(tmp_path: Path) -> None:
    assert [folder for folder, _ in run(tmp_path, 2, f"{os.getpid()} 1", cluster=1)] == ["cluster"]

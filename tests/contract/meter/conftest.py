"""Meters for the tests: one shared, which none may break, and one of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.contract.meter.process import MeterProcess
from tests.support.ports import free_port


@pytest.fixture(scope="session")
def shared_meter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeterProcess]:
    """A meter for tests that use subjects of their own."""
    meter = MeterProcess(tmp_path_factory.mktemp("meter"), free_port()).start()
    yield meter
    meter.stop()


@pytest.fixture(scope="session")
def http(shared_meter: MeterProcess) -> Iterator[httpx2.Client]:
    """A client of the shared meter."""
    with shared_meter.http() as client:
        yield client


@pytest.fixture
def meter(tmp_path: Path) -> Iterator[MeterProcess]:
    """A meter that the test may break."""
    meter = MeterProcess(tmp_path, free_port()).start()
    yield meter
    meter.stop()

"""A time limit that does not run while the process itself stands still."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from kgents.store.patience import LATE, Patience

SHORT, LONG = 0.05, 30.0


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request):
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
def stood_still():
    """What answers while the process stands still for longer than it may take."""

    async def answer():
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            reading = asyncio.create_task(asyncio.get_running_loop().sock_recv(ours, 4))
            await asyncio.sleep(0)
            theirs.send(b"here")
            time.sleep(SHORT + 2 * LATE)  # noqa: ASYNC251 - the process stands still
            return (await reading).decode()

    return answer


async def test_what_is_done_in_time_is_not_disturbed():
    async with Patience(LONG):
        await asyncio.sleep(0)


async def test_what_takes_too_long_is_ended():
    with pytest.raises(TimeoutError):
        async with Patience(SHORT):
            await asyncio.sleep(LONG)
    assert asyncio.current_task().cancelling() == 0


async def test_an_answer_that_came_while_the_process_stood_still_is_read(stood_still):
    async with Patience(SHORT):
        assert await stood_still() == "here"


async def test_without_that_it_would_be_taken_for_silence(stood_still):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SHORT):
            await stood_still()


async def test_the_other_side_gets_as_long_again_and_no_longer():
    async def silence():
        async with Patience(SHORT):
            time.sleep(SHORT + 2 * LATE)  # noqa: ASYNC251 - the process stands still
            await asyncio.sleep(LONG)

    started = time.monotonic()
    with pytest.raises(TimeoutError):
        await silence()
    assert time.monotonic() - started < LONG / 2


async def test_a_cancellation_from_outside_stays_one():
    async def work():
        async with Patience(LONG):
            await asyncio.sleep(LONG)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

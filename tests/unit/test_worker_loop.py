"""A worker's event loop survives a SystemExit of a step's task, and ends with the worker or Ctrl+C."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from pgflow.worker.loop import run


async def raising(raised: type[BaseException]) -> None:
    raise raised("from within")


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt])
def test_a_task_that_raises_does_not_end_the_loop(
    raised: type[BaseException], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pgflow.logs.signal.getsignal", lambda number: None)  # as in a worker
    seen: list[type[BaseException]] = []

    async def main() -> None:
        for _ in range(3):
            try:
                await asyncio.create_task(raising(raised))
            except raised as error:
                seen.append(type(error))
        asyncio.get_running_loop().call_soon(_raise, raised)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen.append(Exception)

    run(main())
    assert seen == [raised, raised, raised, Exception]
    assert caplog.text.count(f"a step's task raised {raised.__name__}; the worker goes on") == 4


def _raise(raised: type[BaseException]) -> None:
    raise raised("from a callback")


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, ValueError])
def test_an_exception_of_the_worker_is_raised(raised: type[BaseException]) -> None:
    with pytest.raises(raised, match="from within"):
        run(raising(raised))


def test_ctrl_c_cancels_the_worker_and_is_raised_when_it_has_ended() -> None:
    seen: list[str] = []

    async def main() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            seen.append("cancelled")
            raise

    with pytest.raises(KeyboardInterrupt):
        run(main())
    assert seen == ["cancelled"]


def test_ctrl_c_still_works_after_a_task_has_raised() -> None:
    async def main() -> None:
        with pytest.raises(SystemExit):
            await asyncio.create_task(raising(SystemExit))
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        run(main())


def test_a_second_ctrl_c_ends_a_worker_that_ignores_the_first() -> None:
    async def main() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        run(main())

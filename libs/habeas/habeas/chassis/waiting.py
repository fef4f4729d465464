"""Waiting for events of one's own process, always with a limit."""

import asyncio
from collections.abc import Awaitable

from habeas.chassis import log


def is_cancelled() -> bool:
    """Answer whether somebody has cancelled this very task; a CancelledError may also be that of something it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def bounded(step: Awaitable[object], limit_s: float) -> None:
    """Wait for one step of a stop, which goes on whatever the step says; the next start mends what was left."""
    try:
        async with asyncio.timeout(limit_s):
            await step
    except (Exception, asyncio.CancelledError) as error:
        if is_cancelled():
            raise
        log.event("service.stop_step_failed", error=error)


async def wait_any(first: asyncio.Event, second: asyncio.Event, limit_s: float) -> bool:
    """Wait until either event is set or the limit is over; answers whether one was set."""
    if first.is_set() or second.is_set():
        return True
    if first is second:
        try:
            async with asyncio.timeout(limit_s):
                return await first.wait()
        except TimeoutError:
            return False
    loop = asyncio.get_running_loop()
    waiters = [loop.create_task(first.wait()), loop.create_task(second.wait())]
    try:
        done, _ = await asyncio.wait(waiters, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    finally:
        for waiter in waiters:
            waiter.cancel()

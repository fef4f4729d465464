"""Waiting for events of one's own process, always with a limit."""

import asyncio


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

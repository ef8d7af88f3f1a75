"""Waits for something to become true, where no event says so: bounded, and it says what it saw last."""

import asyncio
from collections.abc import Callable


async def until(true: Callable[[], object], within: float = 20.0) -> None:
    """Looks at each turn, then each 5 ms."""
    loop = asyncio.get_running_loop()
    over_at = loop.time() + within
    pause = 0.0
    while not true():
        assert loop.time() < over_at, f"not within {within:g} s: {true()!r}"
        await asyncio.sleep(pause)
        pause = 0.005

"""The app for uvicorn."""

from collections.abc import Awaitable, Callable
from typing import Any

import ticking  # type: ignore[import-not-found]

ticking.start()


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["type"] != "http":
        return
    ticking.say("request")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": b"hello\n"})

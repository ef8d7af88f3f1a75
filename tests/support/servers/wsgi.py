"""The app for gunicorn. Ticks start in the worker, after its fork."""

from collections.abc import Callable, Iterable

import ticking  # type: ignore[import-not-found]

ticking.start()


def app(environ: dict[str, object], start_response: Callable[..., object]) -> Iterable[bytes]:
    ticking.say("request")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
    return [b"hello\n"]

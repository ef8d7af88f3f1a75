"""Holds the extensions of a process in their order, and counts and tells what they do wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from queueproxy.extensions import Answer, Extension, Outcome, Request, Response

if TYPE_CHECKING:
    from queueproxy.proxy.plane import ErrorLog

HOOKS: Final = ("request", "response", "finished")


class Counts(Protocol):
    """Where failures of extensions are counted, by its name and hook."""

    @property
    def extension_failures(self) -> dict[tuple[str, str], int]: ...


class Link:
    """One extension; the hooks it has, None for the others."""

    __slots__ = ("close", "finished", "name", "request", "response")

    def __init__(self, name: str, extension: object) -> None:
        def own(hook: str) -> Any:
            """What it defines itself; inheriting from `Extension` is not defining."""
            found = getattr(extension, hook, None)
            return None if getattr(found, "__func__", None) is getattr(Extension, hook) else found

        self.name = name
        self.request: Callable[[Request], Answer | Awaitable[Answer | None] | None] | None = own("request")
        self.response: Callable[[Request, Response], object] | None = own("response")
        self.finished: Callable[[Request, Outcome], None] | None = own("finished")
        self.close: Callable[[], None] | None = own("close")

    def __repr__(self) -> str:
        return f"<Link {self.name} {self.hooks}>"

    @property
    def hooks(self) -> list[str]:
        """Names of those it has."""
        return [hook for hook in HOOKS if getattr(self, hook) is not None]


class Chain:
    """All of them, outermost first. answers, ends: those who want to see answers, or outcomes, outermost last."""

    __slots__ = ("_counts", "_log", "answers", "ends", "links")

    def __init__(self, links: Sequence[Link], counts: Counts, log: ErrorLog) -> None:
        self.links = tuple(links)
        self.answers = [link for link in reversed(links) if link.response is not None]
        self.ends = [link for link in reversed(links) if link.finished is not None]
        self._counts = counts
        self._log = log
        for link in links:  # on the metrics page from the first day
            counts.extension_failures.update({(link.name, hook): 0 for hook in link.hooks})

    def __repr__(self) -> str:
        return f"<Chain {[link.name for link in self.links]}>"

    def blame(self, link: Link, hook: str, error: BaseException) -> None:
        """Counts each failure, and tells the first of each hook: a client must not fill the log."""
        counts, key = self._counts.extension_failures, (link.name, hook)
        counts[key] = counts.get(key, 0) + 1
        if counts[key] == 1:
            import traceback  # 3 ms that nobody else pays

            trace = "".join(traceback.format_exception(error)[-8:])
            self._log.error("Extension failed", extension=link.name, hook=hook, error=reason(error), stacktrace=trace)

    def close(self) -> None:
        """The process ends. How often they failed is said once more: only the first time was."""
        for link in reversed(self.links):
            if link.close is not None:
                try:
                    link.close()
                except BaseException as error:
                    self.blame(link, "close", error)
        for (name, hook), count in sorted(self._counts.extension_failures.items()):
            if count > 1:
                self._log.warning("Extension failed repeatedly", extension=name, hook=hook, times=count)


def reason(error: BaseException) -> str:
    """Kind and text of an exception; an exception whose text breaks has none."""
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

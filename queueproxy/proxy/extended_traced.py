"""Runs requests that are part of a trace past the extensions; see proxy.traced and proxy.extended.

Used only where there are both. An extension sees the traceparent that the app will see.
"""

from __future__ import annotations

from queueproxy.codec.fields import regrouped
from queueproxy.proxy.chain import Chain
from queueproxy.proxy.extended import ExtendedExchange
from queueproxy.proxy.traced import RecordedExchange, TracedExchange


def traced(made: Chain) -> type[ExtendedTracedExchange]:
    """What runs the requests of these extensions; see `extended.extend`."""

    class Recorded(ExtendedRecordedExchange):
        chain = made

    class Traced(ExtendedTracedExchange):
        chain = made
        recorded = Recorded

    return Traced


class ExtendedTracedExchange(ExtendedExchange, TracedExchange):
    """A request that is not recorded, as long as `begin` does not find otherwise. recorded: what runs it then."""

    recorded: type[ExtendedRecordedExchange]

    def _look(self) -> None:
        self.head.lines = regrouped(self.head.lines)
        super()._look()

    def _record(self, trace: bytes, span: bytes, parent: bytes) -> None:
        recorded = self.recorded
        super()._record(trace, span, parent)  # which makes it a class that knows no extensions
        self.__class__ = recorded


class ExtendedRecordedExchange(ExtendedTracedExchange, RecordedExchange):
    """A recorded one."""

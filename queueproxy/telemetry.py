"""Opens what watches the requests: request log, HTTP metrics, traces, the page of 9091, pushes to a collector.

Each part is loaded only where the configuration wants it, and each finds its place here: what the request path is run
by (`accept`), what is begun with the process and what is said at its end.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from queueproxy import __version__
from queueproxy.admin.routes import Reply, user_metrics
from queueproxy.admin.server import Handler, Respond
from queueproxy.clock import monotonic, wall_clock
from queueproxy.codec.http1 import RequestHead
from queueproxy.config import Config
from queueproxy.log import LineWriter, Log
from queueproxy.metrics.pause import PauseCounts
from queueproxy.proxy.observed import Observer, observe
from queueproxy.proxy.plane import Plane
from queueproxy.proxy.server import ClientConnection, acceptor

if TYPE_CHECKING:
    import ssl

    from queueproxy.metrics.courier import Courier
    from queueproxy.metrics.families import Family, Sources
    from queueproxy.metrics.otel import Snapshot
    from queueproxy.net.tlsdoor import TlsDoor
    from queueproxy.traces.spans import Trace

FLUSH_WITHIN: Final = 10.0  # seconds at the end, for everything (QP-244)
TRACES_WAITING: Final = 2048  # requests; the SDK's queue and batch are in spans, ours come three or four at a time
TRACES_BATCH: Final = 128
SWITCH_AFTER: Final = 0.0005  # seconds
_STDOUT: Final = 1


class Telemetry:
    """accept: the protocol factory of the request ports. close, then nothing more."""

    def __init__(
        self, config: Config, loop: asyncio.AbstractEventLoop, log: Log, plane: Plane, pause: PauseCounts
    ) -> None:
        self._config = config
        self._loop = loop
        self._log = log
        self._plane = plane
        self._pause = pause
        self._began_ns = int(wall_clock() * 1e9)
        self._offset_ns = self._began_ns - int(monotonic() * 1e9)
        self._metrics: Courier[Snapshot] | None = None
        self._traces: Courier[Trace] | None = None
        self._next_push = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._scrape_tls: ssl.SSLContext | None = None
        self._door: TlsDoor | None = None
        self.request_log = self._open_request_log()
        self.accept = self._watched()

    def __repr__(self) -> str:
        return f"<Telemetry {self.request_log!r} {self._metrics!r} {self._traces!r}>"

    # -- what the request path is run by

    def _open_request_log(self) -> Observer | None:
        wanted = self._config.observability.request_log
        if not wanted.enabled:
            return None
        from queueproxy.requestlog.start import request_log  # only for those who want it: 15 ms and 1 MB

        return request_log(wanted, self._config.serving, self._loop, self._log, self._plane.recorder)

    def _watched(self) -> Callable[[], ClientConnection]:
        seen, plane = self._config.observability, self._plane
        metrics, tracing = seen.request_metrics.protocol != "none", seen.tracing.protocol != "none"
        if not metrics and not tracing:
            return acceptor(plane) if self.request_log is None else observe(plane, self.request_log)
        plane.observer = self.request_log
        if metrics:
            self._count()
        from queueproxy.proxy.measured import measure

        if not tracing:
            return measure(plane)
        from queueproxy.codec.headers import remember_for_log
        from queueproxy.proxy.traced import TracedExchange, Tracer
        from queueproxy.traces.context import Sampler

        remember_for_log()
        self._traces = self._open_traces()
        sampling = self._config.export.sampling
        plane.tracer = Tracer(Sampler(sampling.ratio, parent_based=sampling.parent_based), self._traces.put)
        return measure(plane, TracedExchange)

    def _count(self) -> None:
        from queueproxy.metrics.requests import HttpCounts

        if self._config.export.opencensus:
            from queueproxy.metrics.opencensus import LATENCIES

            self._plane.recorder.bounds = LATENCIES
            self._plane.http = HttpCounts(LATENCIES)
        else:
            self._plane.http = HttpCounts()
        if self._config.observability.request_metrics.protocol != "prometheus":
            self._metrics = self._open_metrics()

    # -- pushing

    def _resource(self) -> Mapping[str, str]:
        from queueproxy.metrics.resource import resource

        seen = self._config.observability
        return resource(
            self._config.serving, service_name=seen.service_name, instance=seen.instance, version=__version__,
            extra=self._config.export.resource_attributes,
        )  # fmt: skip

    def _open_metrics(self) -> Courier[Snapshot]:
        from queueproxy.metrics.courier import Courier, Exporter

        target = self._config.export.metrics
        assert target is not None

        def exporter() -> Exporter[Snapshot]:
            from queueproxy.metrics.otel import MetricsExporter

            return MetricsExporter(target, self._resource())

        return Courier("metrics", exporter, self._log, limit=1)

    def _open_traces(self) -> Courier[Trace]:
        from queueproxy.metrics.courier import Courier, Exporter

        target, port, gather = self._config.export.traces, self._config.ports.user, self._config.export.gather

        def exporter() -> Exporter[Trace]:
            from queueproxy.traces.export import SpanExporter, StdoutExporter

            if target is not None:
                return SpanExporter(target, self._resource(), port, self._offset_ns, __version__)
            writer = self._log.writer if self._log.writer.fd == _STDOUT else LineWriter(_STDOUT)
            return StdoutExporter(writer.write, self._resource(), port, self._offset_ns)

        return Courier("traces", exporter, self._log, limit=TRACES_WAITING, batch=TRACES_BATCH, gather=gather)

    def begin(self) -> None:
        """The process serves: pushes from now on."""
        if self._metrics is not None or self._traces is not None:
            # The exporters' thread computes for milliseconds at a time; with the default of 5 ms every turn of the loop
            # might have to wait that long for the interpreter.
            sys.setswitchinterval(SWITCH_AFTER)
        if self._metrics is not None:
            self._next_push = monotonic() + self._config.export.every
            self._timer = self._loop.call_at(self._loop.time() + self._next_push - monotonic(), self._push)

    def _push(self) -> None:
        self._put_snapshot()
        every, now = self._config.export.every, monotonic()
        self._next_push = max(self._next_push + every, now)
        self._timer = self._loop.call_later(self._next_push - now, self._push)

    def _put_snapshot(self) -> None:
        assert self._metrics is not None
        from queueproxy.metrics.families import families
        from queueproxy.metrics.otel import snapshot

        taken_ns = int(monotonic() * 1e9) + self._offset_ns
        self._metrics.put(snapshot(families(self._sources()), self._began_ns, taken_ns))

    def _sources(self) -> Sources:
        from queueproxy.metrics.families import Sources

        plane = self._plane
        return Sources(plane.recorder, self._pause, plane.http, self._config.ports.user, self._depth(), monotonic())

    def _depth(self) -> int | None:
        return None if self._plane.limit is None else self._plane.limit.breaker.in_flight

    # -- being asked

    def look_at_tls(self) -> None:
        """Of 9091, before anything is served. Raises TlsFailed."""
        wanted = self._config.export.scrape_tls
        if wanted is None:
            return
        from queueproxy.net.scrapetls import context

        self._scrape_tls = context(wanted)

    def scraped(self, page: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """The protocol factory of 9091: that of the page, or the door before it where TLS is wanted."""
        if self._scrape_tls is None:
            return page
        from queueproxy.net.scrapetls import door

        self._door = door(self._loop, self._scrape_tls, page, self._log)
        return self._door.doorstep

    def shut(self) -> None:
        """Nobody waits at the door any more; the loop is about to end."""
        if self._door is not None:
            self._door.close()

    def page(self) -> Handler:
        """Answers 9091."""
        page: Callable[[], bytes] | None = None

        def handler(head: RequestHead, respond: Respond) -> None:
            nonlocal page
            refusal = user_metrics(head.method, head.target)
            if refusal is not None:
                respond(refusal)
                return
            # Imported for the first scrape: 24 ms that would otherwise delay the first health answer after a start.
            from queueproxy.metrics.prometheus import CONTENT_TYPE

            if page is None:
                page = self._exposition()
            respond(Reply(200, page(), CONTENT_TYPE))

        return handler

    def _exposition(self) -> Callable[[], bytes]:
        from queueproxy.metrics import families, opencensus
        from queueproxy.metrics.prometheus import exposition

        seen, serving = self._config.observability, self._config.serving
        wanted = seen.request_metrics.protocol == "prometheus"
        listing: Callable[[Sources], Iterable[Family]] = families.families
        if self._config.export.opencensus:
            who = opencensus.labels(
                serving.namespace, serving.service, serving.configuration, serving.revision, serving.pod
            )
            listing = lambda sources: opencensus.families(sources, who)  # noqa: E731
        return exposition(
            self._plane.recorder, self._pause, self._depth, http=self._plane.http, user_port=self._config.ports.user,
            resource=self._resource() if wanted else None, listing=listing,
        )  # fmt: skip

    # -- the end

    def close(self, *, at_once: bool = False) -> None:
        """Everything that is still here leaves within ten seconds, or not at all (QP-244). at_once: only the log."""
        if self.request_log is not None:
            self.request_log.close()
        if at_once:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        by = monotonic() + FLUSH_WITHIN
        if self._metrics is not None:
            self._put_snapshot()
        couriers: list[Courier[Snapshot] | Courier[Trace]] = [c for c in (self._metrics, self._traces) if c is not None]
        for courier in couriers:
            courier.finish()
        for courier in couriers:
            if not courier.join(by - monotonic()):
                self._log.warning("Telemetry was not delivered in time.", lost=courier.lost)

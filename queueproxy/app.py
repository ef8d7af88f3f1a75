"""Runs the sidecar: builds the rooms, binds the ports, drains and stops (knative-contract 1.4, 7).

The only place where rooms meet. Start order: configuration, log, loop, sockets, rooms, ticker, `Starting queue-proxy`.
Nothing waits for the app: health checks are answered from the first millisecond (QP-008).
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from queueproxy.admin.routes import NOT_FOUND, Reply, autoscaler, is_drain
from queueproxy.admin.server import HEAD_TIMEOUT, AdminConnection, Handler, Respond
from queueproxy.clock import monotonic
from queueproxy.codec.http1 import RequestHead
from queueproxy.config import Config, ConfigError, load
from queueproxy.drain import Drain, Effect
from queueproxy.drain import Settings as DrainSettings
from queueproxy.entrypoints import ExtensionFailed, extend
from queueproxy.freeze.credential import find
from queueproxy.freeze.gate import Gate
from queueproxy.freeze.policy import IdlePolicy, IdleSettings
from queueproxy.freeze.watch import GateWatch
from queueproxy.limit.breaker import Breaker
from queueproxy.limit.gate import LimitGate, Waiter
from queueproxy.log import LineWriter, Log, settings
from queueproxy.metrics.pause import PauseCounts
from queueproxy.metrics.recorder import Recorder
from queueproxy.metrics.stat import PERIOD, StatReport
from queueproxy.metrics.window import Window
from queueproxy.net.descriptors import raise_limit
from queueproxy.net.listen import ListenFailed, listen
from queueproxy.net.tlsport import TlsFailed, TlsPort
from queueproxy.probes.detection import SPEAKS_HTTP2
from queueproxy.probes.readiness import Readiness
from queueproxy.probes.runner import Prober
from queueproxy.probes.spec import ProbeSpec, ProbeSpecError, decode
from queueproxy.proxy.plane import Plane
from queueproxy.proxy.upstream import UNLIMITED_POOL, Pool
from queueproxy.telemetry import Telemetry

if TYPE_CHECKING:
    from queueproxy.freeze.podsleep import PodSleep

COLLECT_AFTER = 20_000  # objects; a thousand waiting requests hold fewer
QUEUE_DEPTH_FACTOR = 10  # waiting requests per slot (contract 4)
ENDING = (signal.SIGTERM, signal.SIGINT)
USER_METRICS_HEAD_TIMEOUT = 5.0  # seconds; the Prometheus listener is stricter upstream (contract 1.1)


def new_loop(kind: str = "auto") -> asyncio.AbstractEventLoop:
    """uvloop where importable, the stdlib loop otherwise; kind "asyncio" or "uvloop" insists (design D1)."""
    if kind != "asyncio":
        try:
            import uvloop
        except ImportError:
            if kind == "uvloop":
                raise
        else:
            return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def build_limit(concurrency: int) -> LimitGate | None:
    """The limiter for a container concurrency; None for 0, which means no limit (QP-152)."""
    if concurrency <= 0:
        return None
    return LimitGate(Breaker[Waiter](concurrency, QUEUE_DEPTH_FACTOR * concurrency))


class Sidecar:
    """One queue-proxy process."""

    def __init__(
        self,
        config: Config,
        specs: tuple[ProbeSpec, ...],
        loop: asyncio.AbstractEventLoop,
        log: Log,
        stderr: Callable[[str], None],
        drain_settings: DrainSettings | None = None,
    ) -> None:
        now = monotonic()
        self._config = config
        self._loop = loop
        self._log = log
        self.recorder = Recorder(Window(now))
        self.stat = StatReport(config.serving.pod, self.recorder.window, now)
        self.pause = PauseCounts(now)
        self.limit = build_limit(config.concurrency)
        self.pool = Pool(loop, "127.0.0.1", config.ports.user, config.concurrency or UNLIMITED_POOL)
        self.sleep = self._find_freezer()
        self.gate = self._build_gate(self.sleep)
        policy = self.gate.policy
        self.prober = Prober(specs, loop, lambda: policy.asleep, stderr)
        self.prober.on_result = self._probed
        self.prober.on_http2 = lambda: log.warning(SPEAKS_HTTP2)
        self.drain = Drain(drain_settings)
        self.plane = Plane(
            loop=loop,
            recorder=self.recorder,
            limit=self.limit,
            gate=self.gate,
            pool=self.pool,
            timeouts=config.timeouts,
            health=Readiness(self.prober, lambda: policy.stuck),
            drain=self.drain,
            log=log,
        )
        if self.sleep is not None:
            self.sleep.watch(self.plane, self.prober)
        self.plane.probe_asked = lambda who: self.pause.answered(who, "asleep" if policy.asleep else "awake")
        self.telemetry = Telemetry(config, loop, log, self.plane, self.pause)
        self.accept = self.telemetry.accept
        self.tls = TlsPort(loop, config.certificates, config.tls, {"http/1.1": self.accept}, log)
        self._servers: dict[str, asyncio.Server] = {}
        self._admin: set[AdminConnection] = set()
        self._drain_waiters: list[Respond] = []
        self._drain_timer: asyncio.TimerHandle | None = None
        self._next_tick = 0.0
        self._exit: asyncio.Future[int] = loop.create_future()

    def __repr__(self) -> str:
        return f"<Sidecar {self._config.serving.revision} {self.drain!r} {self.plane!r}>"

    def _find_freezer(self) -> PodSleep | None:
        """None without a token: freezing is not wanted, and nothing is ever asked for it (FZ-002)."""
        config = self._config
        if find(config.mounted.tokens) is None:
            return None
        # Imported only where a token is mounted: 15 ms and 1 MB that a plain proxy need not pay.
        from queueproxy.freeze.mounts import Mounts, look
        from queueproxy.freeze.podsleep import PodSleep

        way, notes = look(Mounts(config.host_ip, *config.mounted, *config.legacy_freezer))
        for note in notes:
            self._log.warning(note)
        return None if way is None else PodSleep(self._loop, way, self._log, self.pause, self._woke)

    def _build_gate(self, sleep: PodSleep | None) -> Gate:
        watch, loop = GateWatch(self.pause), self._loop
        if sleep is None:
            policy = IdlePolicy(IdleSettings(freeze_after=None, throttle_after=None))
            return Gate(policy, loop, None, drop_pool=self._before_sleep, observers=(watch,))
        policy = IdlePolicy(IdleSettings())
        gate = Gate(
            policy,
            loop,
            sleep.client,
            drop_pool=self._before_sleep,
            look=sleep.look,
            observers=(sleep, watch),
            patience=sleep.patience,
        )
        ports = self._config.ports
        sleep.attach(gate, watch, ports.user, set(ports) - {ports.user})
        return gate

    # -- start

    async def run(self) -> int:
        """Serves until told to stop; the exit code."""
        try:
            await self._open_all()
        except TlsFailed as error:
            self._log.emergency(error.message, error=error.reason)
            return 1
        except ListenFailed as error:
            self._log.error("Failed to bring up queue-proxy, shutting down.", error=str(error))
            return 1
        for number in ENDING:
            self._loop.add_signal_handler(number, self._signalled, number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)  # blocked by `serve`: an early one waited for this
        self._next_tick = monotonic() + PERIOD
        self._loop.call_later(PERIOD, self._tick)
        self._log.info("Starting queue-proxy")
        self.telemetry.begin()
        if self.sleep is not None:
            self.sleep.begin()
        if self.sleep is not None or self._config.observability.request_metrics.protocol == "prometheus":
            await self._open_user_metrics()
        code = await self._exit
        self._log.info("Shutdown complete, exiting...")
        return code

    async def _open_all(self) -> None:
        ports = self._config.ports
        if self.limit is not None:
            most, depth = self.limit.breaker.capacity, self.limit.breaker.depth
            params = f"QueueDepth:{depth}, MaxConcurrency:{most}, InitialCapacity:{most}"
            self._log.info(f"Queue container is starting with BreakerParams = queue.BreakerParams{{{params}}}")
        self.telemetry.look_at_tls()
        await self.tls.open(ports.tls)  # first: what is wrong with a certificate is said before anybody is let in
        await self._open("main", ports.request, self.accept)
        await self._open("metrics", ports.autoscaler, self._side(self._autoscaler))
        await self._open("admin", ports.admin, self._side(self._wait_for_drain))
        if self._config.observability.profiling:  # neither loaded nor opened for others
            from queueproxy.admin import profiling

            self._log.info("Runtime profiling enabled")
            page = self._side(profiling.Profiling(self._loop), profiling.HEAD_TIMEOUT)
            await self._open("profile", ports.profiling, page)

    async def _open(
        self,
        name: str,
        port: int,
        factory: Callable[[], asyncio.Protocol],
        host: str = "",
    ) -> None:
        try:
            sock = listen(port, host)
        except ListenFailed as error:
            raise ListenFailed(f"{name} server failed to serve: {error}") from error
        self._servers[name] = await self._loop.create_server(factory, sock=sock)
        self._log.info(f"Starting http server {name}:{port}")

    def _side(self, handler: Handler, head_timeout: float = HEAD_TIMEOUT) -> Callable[[], asyncio.Protocol]:
        return lambda: AdminConnection(handler, self._loop, self._admin, head_timeout)

    async def _open_user_metrics(self) -> None:
        settings = self._config.observability.request_metrics
        page = self.telemetry.scraped(self._side(self.telemetry.page(), USER_METRICS_HEAD_TIMEOUT))
        try:
            await self._open("user-metrics", settings.port, page, settings.host)
        except ListenFailed as error:
            # Not fatal, and said where upstream says it (contract 1.4, QP-012).
            reason = str(error).partition("failed to serve: ")[2]
            os.write(1, f"metrics server error: {reason}\n".encode())

    # -- side ports

    def _autoscaler(self, head: RequestHead, respond: Respond) -> None:
        respond(autoscaler(head.target, self.stat.encoded))

    def _wait_for_drain(self, head: RequestHead, respond: Respond) -> None:
        if not is_drain(head.target):
            respond(NOT_FOUND)
            return
        self._log.info("Attached drain handler from user-container...")
        self._drain_waiters.append(respond)
        self._stay_awake()  # the app is about to get SIGTERM: it must run to hear it (FZ-054)
        self._carry_out(self.drain.waited(monotonic()))

    # -- time

    def _tick(self) -> None:
        now = monotonic()
        self.stat.tick(now)
        # The next tick is due on the grid, not a period after this one: no drift, and no bunching after a stall.
        due = self._next_tick + PERIOD
        self._next_tick = due if due > now else now + PERIOD
        self._loop.call_later(self._next_tick - now, self._tick)

    def _before_sleep(self) -> None:
        """Nothing of ours may touch the app while it sleeps: no pooled connection, no probe (FZ-030, FZ-041)."""
        self.pool.rest()
        self.prober.slept()

    def _probed(self, ready: bool) -> None:
        if ready:
            self.gate.ready()
        else:
            self.gate.unready()

    def _woke(self) -> None:
        """What happened to the app while it slept shows in a real probe, and in nothing else (FZ-042)."""
        self.prober.check(lambda ready: None)

    # -- the end

    def _stay_awake(self) -> None:
        if self.sleep is None:
            self.gate.terminate()
        else:
            self.sleep.terminate()

    def _signalled(self, number: int) -> None:
        name = "TERM" if number == signal.SIGTERM else "INT"
        self._log.info(f"Received {name} signal, attempting to gracefully shutdown servers.")
        self._stay_awake()  # thaw first, then drain (FZ-050)
        effects = self.drain.terminated(monotonic())
        if Effect.FAIL_PROBES in effects:
            self._log.info("Sleeping 30s to allow K8s propagation of non-ready state")
        self._carry_out(effects)

    def _carry_out(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            if effect is Effect.RELEASE_WAITERS:
                waiters, self._drain_waiters = self._drain_waiters, []
                for respond in waiters:
                    respond(Reply(200))
            elif effect is Effect.CLOSE_LISTENERS:
                self._close_listeners()
            elif effect is Effect.GIVE_UP_HIJACKED:
                self._log.warning("Hijack connection drain failed")
            elif effect is Effect.EXIT_NOW:
                self.close_logs(at_once=True)
                os._exit(1)  # a second signal means now (QP-013)
            elif effect is Effect.EXIT and not self._exit.done():
                self._exit.set_result(0)
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None
        deadline = self.drain.next_deadline()
        if deadline is not None:
            self._drain_timer = self._loop.call_later(max(0.0, deadline - monotonic()), self._on_drain_timer)

    def _on_drain_timer(self) -> None:
        self._drain_timer = None
        self._carry_out(self.drain.on_deadline(monotonic()))

    def _close_listeners(self) -> None:
        """The request listeners first; the side ports stay until the end (QP-290)."""
        self._log.info("Shutting down server: main")
        self._servers.pop("main").close()
        self.tls.close()
        self.plane.idle_empty = self._emptied
        self.plane.close_idle()
        self._loop.call_soon(self._emptied)

    def _emptied(self) -> None:
        plane, now = self.plane, monotonic()
        if plane.in_flight == 0:
            if plane.delivered:
                self._carry_out(self.drain.emptied(now))
        elif plane.in_flight == plane.tunnels:
            self._carry_out(self.drain.emptied(now, hijacked=True))

    def close_logs(self, *, at_once: bool = False) -> None:
        """Last words."""
        self.telemetry.close(at_once=at_once)
        self._log.close()

    async def close(self) -> None:
        """Ends what is left; after this nothing of ours is on the loop."""
        for name, server in self._servers.items():
            if name != "main":
                self._log.info(f"Shutting down server: {name}")
            server.close()
        self.telemetry.shut()
        for connection in list(self._admin):
            connection.close_if_idle()
        self.prober.close()
        self.gate.close()
        if self.sleep is not None:
            self.sleep.close()
        self.pool.leave_alone()
        await asyncio.sleep(0)  # lets the last answers leave


def serve(environ: Mapping[str, str], *, loop_kind: str = "auto", drain_settings: DrainSettings | None = None) -> int:
    """The sidecar's main: configuration errors on stderr, all of them, exit 1 (contract 1.4)."""
    try:
        config = load(environ)
    except ConfigError as error:
        sys.stderr.write("".join(f"{line}\n" for line in error.lines))
        return 1
    form, level, fd, warning = settings(config.logging_config, config.logging_level)
    serving = config.serving
    fields = {"knative.dev/key": f"{serving.namespace}/{serving.revision}", "knative.dev/pod": serving.pod}
    writer = LineWriter(fd)
    log = Log(writer, fields, level=level, format=form)
    if warning:
        log.warning(warning)
    for note in config.notes:
        log.warning(note)
    try:
        specs = decode(config.probe_json, multi=config.multi_probes, detect=config.h2_detection)
    except ProbeSpecError as error:
        log.emergency("Queue container failed to parse readiness probe", error=str(error))
        log.close()
        return 1
    plain = writer if fd == 2 else LineWriter(2)  # probe failures are plain text on stderr (contract 6.6)
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # until somebody handles them in the proper order
    raise_limit()
    loop = new_loop(loop_kind)
    try:
        sidecar = Sidecar(
            config, specs, loop, log, lambda line: (plain.write(line.encode() + b"\n"), None)[1], drain_settings
        )
        close_extensions = extend(sidecar.plane, config, loop, log)
        # What was made so far stays: the collector need not look at it again. A request leaves no cycles behind, so
        # looking for them every 700 objects (the default) is work for nothing.
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER, 10, 10)
        code = loop.run_until_complete(sidecar.run())
        close_extensions()
        loop.run_until_complete(sidecar.close())
    except ExtensionFailed as error:
        return error.tell(log)
    finally:
        loop.close()
    sidecar.close_logs()
    return code

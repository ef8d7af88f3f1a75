"""Runs the loop side of local mode: the data plane in front of one child, its readiness, its sleep, its end.

The same rooms as the sidecar, composed for one machine: no limiter, no autoscaler, no drain period, no timeouts of a
revision. Until the app has answered once, requests get 503 with a line that says so and nothing sleeps. The end has
one order whoever starts it: thaw, stop accepting, let requests finish, pass the signal on, wait, kill; a second
signal skips the waiting.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable

from queueproxy.clock import monotonic, wall_clock
from queueproxy.freeze.gate import Gate, Looked
from queueproxy.freeze.policy import IdlePolicy, IdleSettings, Look
from queueproxy.freeze.watch import GateWatch
from queueproxy.local.child import Child, describe_exit
from queueproxy.local.ending import Do, Ending
from queueproxy.local.exposition import Exposition
from queueproxy.local.freezer import LocalFreezer
from queueproxy.local.idlecpu import IdleCpu
from queueproxy.local.report import Report, status_text
from queueproxy.local.settings import PASSED_ON, SHADOW, RunSettings
from queueproxy.local.tally import Tally
from queueproxy.local.terminal import StatusLine
from queueproxy.local.watch import RunWatch
from queueproxy.metrics.pause import PauseCounts
from queueproxy.metrics.recorder import Recorder
from queueproxy.metrics.window import Window
from queueproxy.net.listen import ListenFailed
from queueproxy.net.sockdiag import ListenWatch, SockDiagError
from queueproxy.probes.runner import Prober
from queueproxy.probes.spec import HttpGet, ProbeSpec, TcpSocket
from queueproxy.proxy.deadline import Timeouts
from queueproxy.proxy.plane import Plane
from queueproxy.proxy.server import acceptor
from queueproxy.proxy.upstream import UNLIMITED_POOL, Pool

__all__ = ["Serving", "idle_settings"]

APP_HOST = "127.0.0.1"
# Nobody set a timeout here, and the plane wants a number: a month is longer than any request and fits every timer.
NO_LIMIT = 30 * 86_400.0
# Between two rounds of probing an app that is late; each round tries for 10 s (QP-263).
PROBE_AGAIN_AFTER = 0.5


def idle_settings(settings: RunSettings) -> IdleSettings:
    """The policy as the flags say. What protects a node from many pods (flap limit, pause between freezes) is off
    here: one app, one owner, and --freeze-after means what it says."""
    delays = [delay for delay in (settings.freeze_after, settings.throttle_after) if delay is not None]
    return IdleSettings(
        freeze_after=settings.freeze_after,
        throttle_after=settings.throttle_after,
        min_uptime=settings.min_uptime,
        min_running=min([IdleSettings().min_running, *delays]),
        min_between_freezes=0.0,
        grace_cap=0.0,  # the flap limiter may not lengthen anything
        shadow=settings.mode == SHADOW,
    )


class _NeverDraining:
    """Local mode has no drain period: the end is immediate."""

    draining = False

    def request_arrived(self, now: float) -> None:
        """Nothing depends on it."""


class Serving:
    """One run on its loop."""

    def __init__(
        self,
        settings: RunSettings,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        child: Child,
        app_port: int,
        freezer: LocalFreezer,
        cpu_used: Callable[[], int | None],
        guardian_pid: int,
        report: Report,
    ) -> None:
        now = monotonic()
        self._settings = settings
        self._loop = loop
        self._sock = sock
        self._child = child
        self._app_port = app_port
        self._guardian_pid = guardian_pid
        self._report = report
        self._began_at = now
        self._waiting_sockets = ListenWatch((app_port,))
        self._shadow = settings.mode == SHADOW

        self.recorder = Recorder(Window(now))
        self.pause = PauseCounts(now)
        self.tally = Tally("running", now)
        self.idle_cpu = IdleCpu(loop, cpu_used, self._requests, self._idled)
        self._pool = Pool(loop, APP_HOST, app_port, UNLIMITED_POOL)
        policy = IdlePolicy(idle_settings(settings))
        watch = RunWatch(self.tally, report, self.idle_cpu, shadow=self._shadow)
        self.gate = Gate(
            policy,
            loop,
            freezer,
            drop_pool=self._slept,
            look=self._look,
            observers=(GateWatch(self.pause, shadow=self._shadow), watch),
        )
        self.prober = Prober((self._probe(),), loop, lambda: policy.asleep, _ignore)
        self.prober.on_result = self._probed
        self.plane = Plane(
            loop=loop,
            recorder=self.recorder,
            limit=None,
            gate=self.gate,
            pool=self._pool,
            timeouts=Timeouts(NO_LIMIT),
            health=self.prober,
            drain=_NeverDraining(),
            log=report.log,
        )
        freezer.on_gone = lambda: self._awake_for_ever("the app's cgroup was removed")
        child.on_exit = self._app_ended
        child.on_stray = self._stray_ended

        self._server: asyncio.Server | None = None
        self._exposition = Exposition()
        self._ready = False
        self._since = _clock()
        self._line: StatusLine | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._ending = Ending(settings.grace)
        self._over: asyncio.Future[None] = loop.create_future()

    @property
    def exit_status(self) -> int:
        """What the process ends with."""
        return self._ending.status

    def __repr__(self) -> str:
        return f"<Serving {self._child!r} {self.gate!r} {self.plane!r}>"

    # -- start

    async def run(self) -> None:
        """Serves until the app or we are told to end; then everything has been let go of but the processes."""
        port = self._sock.getsockname()[1]
        # Before anything can be asked: what is refused until the app is ready, and how.
        self.gate.refuse_with(f"the app is not ready yet: nothing answers on {APP_HOST}:{self._app_port}")
        self._server = await self._loop.create_server(acceptor(self.plane), sock=self._sock)
        url = f"http://{_bracketed(self._settings.host)}:{port}"
        self._report.event("serving", f"serving on {url}", url=url, port=port)
        if self._settings.metrics_port:
            await self._open_metrics()
        self._timers["late"] = self._loop.call_later(self._settings.start_timeout, self._late)
        self.idle_cpu.start()
        self._check()
        try:
            await self._over
        finally:
            self._close()

    def watch_terminal(self, fd: int) -> None:
        """Show the status line there."""
        self._line = StatusLine(fd, self._loop, self._status)
        self._report.changed = self._changed
        self._loop.add_signal_handler(signal.SIGWINCH, self._line.resized)
        self._line.changed()

    async def _open_metrics(self) -> None:
        settings = self._settings
        try:
            await self._exposition.open(self._loop, settings.host, settings.metrics_port, self.recorder, self.pause)
        except ListenFailed as error:
            self._report.problem(f"no metrics: {error}")

    # -- readiness

    def _probe(self) -> ProbeSpec:
        path = self._settings.ready_path
        if path is None:
            return ProbeSpec(TcpSocket(APP_HOST, self._app_port))
        return ProbeSpec(HttpGet(APP_HOST, self._app_port, False, path, ()))

    def _check(self) -> None:
        self._timers.pop("probe", None)
        self.prober.check(_ignore)

    def _probed(self, ready: bool) -> None:
        if self._ready or not self._child.alive:
            return
        if not ready:
            self._timers["probe"] = self._loop.call_later(PROBE_AGAIN_AFTER, self._check)
            return
        self._ready = True
        self._cancel("late")
        self.gate.accept()
        after = monotonic() - self._began_at
        self._report.event("ready", f"the app is ready after {after:.2f} s", after_s=round(after, 3))
        self.gate.ready()

    def _late(self) -> None:
        what = f"GET {self._settings.ready_path}" if self._settings.ready_path else "a connection"
        self._report.problem(
            f"the app is not ready after {self._settings.start_timeout:g} s: {what} gets no good answer on "
            f"{APP_HOST}:{self._app_port}. Does it listen on $PORT? Waiting on."
        )

    # -- sleep

    def _look(self, look: Look, looked: Looked) -> None:
        """Connections that wait at the app itself, past us, keep it awake (FZ-028)."""
        try:
            waiting = self._waiting_sockets.accept_queue().get(self._app_port, 0) if look.backlog else 0
        except SockDiagError:
            waiting = 0  # a kernel that does not say is no reason never to sleep
        looked(look.number, f"{waiting} connections wait at the app" if waiting else None)

    def _slept(self) -> None:
        """The app is about to sleep: no connection to it may survive (FZ-030, FZ-041)."""
        self._pool.rest()
        self.prober.slept()

    def _awake_for_ever(self, why: str) -> None:
        self._report.problem(f"{why}: the app stays awake from now on")
        self.gate.disable(why)

    def _requests(self) -> tuple[int, int]:
        return self.plane.in_flight, self.recorder.window.count

    def _idled(self, cpu_for: float, idle_for: float) -> None:
        self.tally.idled(cpu_for, idle_for)
        self.pause.idle_cpu_seconds = self.tally.idle_cpu
        self._changed()

    # -- the status line

    def _changed(self) -> None:
        if self._line is not None:
            self._line.changed()

    def _status(self) -> str:
        now = monotonic()
        if self.tally.since > self._began_at:
            self._since = time.strftime("%H:%M:%S", time.localtime(wall_clock() - (now - self.tally.since)))
        note = "stopping" if self._ending.step else "" if self._ready else "not ready yet"
        return status_text(self.tally, now, in_flight=self.plane.in_flight, since=self._since, note=note)

    # -- the end

    def signalled(self, number: signal.Signals) -> None:
        """A signal to us."""
        if number in PASSED_ON:
            self._child.signal(number)
            self.gate.touched(number.name)  # asleep it would only be queued
            return
        again = self._ending.number is not None
        text = f"{number.name} again: ending at once" if again else f"{number.name}: stopping"
        self._report.event("signal", text, signal=number.name)
        self._carry_out(self._ending.signalled(monotonic(), number, self.plane.in_flight))

    def _app_ended(self, status: int) -> None:
        effects = self._ending.app_ended(monotonic(), status, self.plane.in_flight)
        said = f"the app {describe_exit(status)}"
        if self._ending.number is not None and self._ending.status == 0:
            self._report.event("exit", said, status=status)
        else:
            asleep = "" if self.tally.state == "running" else f" while {self.tally.state}"
            self._report.problem(said + asleep, status=status)
        self._carry_out(effects)

    def _emptied(self) -> None:
        self._carry_out(self._ending.emptied(monotonic()))

    def _on_ending_timer(self) -> None:
        self._timers.pop("ending", None)
        self._carry_out(self._ending.on_deadline(monotonic()))

    def _carry_out(self, effects: tuple[Do, ...]) -> None:
        for effect in effects:
            if effect is Do.THAW:
                self.gate.terminate()
            elif effect is Do.STOP_ACCEPTING:
                self._stop_accepting()
                self.plane.idle_empty = self._emptied
            elif effect is Do.HAND_ON:
                assert self._ending.number is not None
                self._child.signal(self._ending.number)
            elif effect is Do.GIVE_UP:
                self._report.problem(f"the app did not end within {self._settings.grace:g} s: killing it")
            elif effect is Do.END and not self._over.done():
                self.plane.idle_empty = None
                self._over.set_result(None)
        self._cancel("ending")
        deadline = self._ending.next_deadline()
        if deadline is not None:
            wait = max(0.001, deadline - monotonic())  # a millisecond: timers may fire that much early
            self._timers["ending"] = self._loop.call_later(wait, self._on_ending_timer)

    def _stray_ended(self, pid: int, status: int) -> None:
        if pid == self._guardian_pid and not self._over.done():
            # Nobody would mend after us: without that promise there is no sleep.
            self._awake_for_ever(f"the guardian {describe_exit(status)}")

    def _stop_accepting(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            self.plane.close_idle()

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _close(self) -> None:
        for name in list(self._timers):
            self._cancel(name)
        self._stop_accepting()
        self._exposition.close()
        self.prober.close()
        self.gate.close()
        self._pool.leave_alone()
        self.idle_cpu.stop()
        self._waiting_sockets.close()
        self._report.changed = _nothing
        if self._line is not None:
            self._line.close()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _ignore(_: object) -> None:
    pass


def _nothing() -> None:
    pass

"""Runs `queueproxy run`: the order of starting and the promise of ending.

Start: take the port, mend what older runs left, fork the guardian, make the app's place, write it down, start the
app, serve. Whatever goes wrong after the first of these is undone in reverse by one `finally`; whatever kills us
instead is undone by the guardian from the journal. The record is written before the app exists, names every place
that may be made, and goes last.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from asyncio import AbstractEventLoop
from collections.abc import Callable

from queueproxy.clock import monotonic
from queueproxy.freeze.node.cgroup import Freezer, open_freezer
from queueproxy.freeze.node.directory import Cgroup, NotACgroup
from queueproxy.freeze.node.throttle import CpuThrottle, cpu_usage_usec
from queueproxy.local import procfs
from queueproxy.local.child import Child, StartError, free_port
from queueproxy.local.guardian import Guardian
from queueproxy.local.journal import Journal, JournalError, Record, open_journal, open_journals, run_name
from queueproxy.local.mend import mend, mend_all
from queueproxy.local.placement import SIGNALS, Place, PlacementError, place, plans, read_hierarchy
from queueproxy.local.report import Report, summary_of
from queueproxy.local.settings import ENDING, PASSED_ON, SIGNAL, RunSettings
from queueproxy.local.stopper import SessionStopper
from queueproxy.local.terminal import RESET
from queueproxy.net.listen import ListenFailed, listen

__all__ = ["run"]

EX_FAILED = 1
# What is left of the app when its first process has ended gets no further grace; this is for the kernel to do it.
KILL_WITHIN = 5.0
HANDLED = (*ENDING, *PASSED_ON, signal.SIGCHLD)


class _Failed(Exception):
    """The run cannot go on; the text is for people, `status` for the shell."""

    def __init__(self, message: str, status: int = EX_FAILED) -> None:
        super().__init__(message)
        self.status = status


def run(settings: RunSettings) -> int:
    """The subcommand; its exit status."""
    terminal = not settings.json and os.isatty(2)
    report = Report(as_json=settings.json, verbose=settings.verbose, terminal=terminal)
    try:
        return _Run(settings, report, terminal=terminal).run()
    except _Failed as error:
        report.fatal(str(error))
        return error.status
    finally:
        report.close()


class _Run:
    """Everything of one run that has to be undone."""

    def __init__(self, settings: RunSettings, report: Report, *, terminal: bool) -> None:
        self._settings = settings
        self._report = report
        self._terminal = terminal
        self._undo = contextlib.ExitStack()
        owner = procfs.identity(os.getpid())
        assert owner is not None
        self._record = Record(
            name=run_name(owner),
            owner=owner,
            boot=procfs.boot_id(),
            pids=procfs.pid_namespace(),
            mechanism=SIGNALS,
            command=settings.command,
        )

    def run(self) -> int:
        with self._undo:
            # Until somebody handles them: a signal in these milliseconds waits, and then ends us in the proper order.
            self._undo.callback(
                signal.pthread_sigmask, signal.SIG_SETMASK, signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
            )
            sock = self._take_port()
            self._undo.callback(sock.close)
            journal = self._open_journal()
            self._mend_older_runs()
            guardian = self._fork_guardian(journal)
            self._record = self._record.with_(guardian=guardian.pid)

            from queueproxy.app import new_loop  # after the fork: the guardian carries none of it

            loop = new_loop()
            self._undo.callback(loop.close)
            found = self._find_place(journal)
            app_port = self._settings.app_port or free_port()
            child = self._start_app(loop, found, app_port)
            self._record = self._record.with_(app=child.identity)
            journal.write(self._record)
            return self._serve(loop, sock, child, app_port, found, guardian)

    # -- in the order of starting

    def _take_port(self) -> socket.socket:
        try:
            return listen(self._settings.port, self._settings.host)
        except ListenFailed as error:
            raise _Failed(f"{error} (is another one running there? choose a different --port)") from None

    def _open_journal(self) -> Journal:
        try:
            journal = open_journal(os.geteuid(), os.environ)
            self._undo.callback(journal.close)
            journal.write(self._record)
        except (JournalError, OSError) as error:
            raise _Failed(f"{error}. Set XDG_RUNTIME_DIR to a directory of your own.") from None
        self._undo.callback(journal.remove, self._record.name)
        return journal

    def _mend_older_runs(self) -> None:
        """What a killed run left asleep runs again before we start; it is not ended, only `thaw-all --stop` does
        that."""
        journals = open_journals(os.geteuid(), os.environ)
        try:
            for item in mend_all(journals, force=False, stop=False):
                if not item.did.startswith("left alone") and item.did != "nothing to do":
                    self._report.problem(f"an older run was not ended properly: {item.name}: {item.did}")
        finally:
            for journal in journals:
                journal.close()

    def _fork_guardian(self, journal: Journal) -> Guardian:
        path, name, terminal = journal.path, self._record.name, self._terminal

        def mend_after_us() -> None:
            if terminal:
                with contextlib.suppress(OSError):
                    os.write(2, RESET)
            ours = Journal(path, create=False)
            record = ours.read(name)
            if record is not None:
                mend(record, ours, stop=True)

        guardian = Guardian(mend_after_us, keep=(2,) if terminal else ())
        self._undo.callback(guardian.dismiss)
        return guardian

    def _find_place(self, journal: Journal) -> Place | None:
        mounts, places = read_hierarchy()
        way = self._settings.cgroup
        candidates = plans(way, mounts, places, self._record.name, needs_cpu=self._settings.needs_cpu)
        if not candidates:
            raise _Failed(_why_nowhere(self._settings))
        # Written before the first directory is made: whoever mends us removes whichever of them exist.
        everything = tuple(path for plan in candidates for path in plan.cgroups)
        self._record = self._record.with_(others=everything)
        journal.write(self._record)
        try:
            found, refused = place(candidates)
        except PlacementError as error:
            raise _Failed(f"no cgroup for the app: {error}") from None
        for reason in refused:
            self._report.log.debug("not used", reason=reason)
        if found is None:
            if way != SIGNAL:
                reasons = "; ".join(refused) or "none is mounted"
                self._report.problem(f"no cgroup is writable ({reasons}): using SIGSTOP and SIGCONT")
            return None
        self._undo.callback(self._remove, found)
        plan = found.plan
        self._record = self._record.with_(mechanism=plan.mechanism, freezer=plan.freezer, cpu=plan.cpu)
        return found

    def _remove(self, found: Place) -> None:
        found.close()
        left = found.remove()
        if left:
            self._report.problem("could not remove " + " ".join(left))

    def _start_app(self, loop: AbstractEventLoop, found: Place | None, app_port: int) -> Child:
        environ = {**os.environ, "PORT": str(app_port)}
        doors = found.doors if found is not None else []
        try:
            # The app's stdout would mix with our events, so it goes where its errors go.
            child = Child(self._settings.command, environ, doors, stdout=2 if self._settings.json else None)
        except StartError as error:
            raise _Failed(str(error), error.status) from None
        self._undo.callback(self._end_app, child, found)
        if found is not None:
            found.close()
        self._report.event(
            "started",
            f"started {self._settings.command[0]} (pid {child.pid}) with PORT={app_port}",
            pid=child.pid,
            guardian=self._record.guardian,
            app_port=app_port,
            mechanism=self._record.mechanism,
            cgroup=self._record.freezer,
            command=list(self._settings.command),
            began_at_monotonic_s=self._report.began_at,
        )
        return child

    def _serve(
        self,
        loop: AbstractEventLoop,
        sock: socket.socket,
        child: Child,
        app_port: int,
        found: Place | None,
        guardian: Guardian,
    ) -> int:
        from queueproxy.local.freezer import LocalFreezer
        from queueproxy.local.serving import Serving
        from queueproxy.net.descriptors import raise_limit

        raise_limit()  # ours only: the app was started with what the shell gave

        stoppable: Freezer | SessionStopper = SessionStopper(child.pid)
        throttle = None
        if found is not None:
            assert found.plan.freezer is not None
            stoppable = open_freezer(found.plan.freezer)
            if found.plan.cpu is not None:
                throttle = CpuThrottle.open(found.plan.cpu)
                self._undo.callback(throttle.close)
        self._undo.callback(stoppable.close)
        freezer = LocalFreezer(loop, self._record.mechanism, stoppable, throttle)
        self._undo.callback(freezer.close)
        used = stoppable.usage_usec if isinstance(stoppable, SessionStopper) else self._cpu_used(found)
        serving = Serving(self._settings, loop, sock, child, app_port, freezer, used, guardian.pid, self._report)
        for number in (*ENDING, *PASSED_ON):
            loop.add_signal_handler(number, serving.signalled, number)
        # Not add_signal_handler: uvloop keeps SIGCHLD for itself. A plain handler wakes either loop through the wakeup
        # descriptor it has set for the signals above.
        before = signal.signal(signal.SIGCHLD, lambda *_: _void(loop.call_soon_threadsafe(child.reap)))
        self._undo.callback(signal.signal, signal.SIGCHLD, before)
        if self._terminal:
            serving.watch_terminal(2)
        # In the loop's first turn: uvloop hears of signals only while it runs, and what came before would be lost.
        loop.call_soon(signal.pthread_sigmask, signal.SIG_UNBLOCK, HANDLED)
        loop.run_until_complete(serving.run())
        facts = summary_of(
            serving.tally,
            monotonic(),
            requests=serving.recorder.window.count,
            exit_status=serving.exit_status,
            mechanism=self._record.mechanism,
        )
        self._report.summary(facts)
        return serving.exit_status

    def _cpu_used(self, found: Place | None) -> Callable[[], int | None]:
        if found is None or found.plan.usage is None:
            return lambda: None
        try:
            cgroup = Cgroup.open(found.plan.usage)
        except (OSError, NotACgroup):
            return lambda: None
        self._undo.callback(cgroup.close)
        return lambda: cpu_usage_usec(cgroup)

    def _end_app(self, child: Child, found: Place | None) -> None:
        """Nothing of the app outlives us: kill what is left, frozen or not, and collect it."""
        child.on_exit = child.on_stray = None
        stopper = SessionStopper(child.pid)
        freezer = None
        if found is not None and found.plan.freezer is not None:
            with contextlib.suppress(OSError, NotACgroup):
                freezer = open_freezer(found.plan.freezer)
        deadline = monotonic() + KILL_WITHIN
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))
        try:
            while True:
                child.reap()
                gone = not child.alive and (freezer is None or not freezer.observe().populated) and not stopper.pids()
                if gone or monotonic() >= deadline:
                    break
                if freezer is not None:
                    freezer.kill()
                stopper.kill()
                # The end of a child is told by SIGCHLD; the bound is for processes that are not ours to collect.
                signal.sigtimedwait((signal.SIGCHLD,), 0.01)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if freezer is not None:
                freezer.close()


def _void(_: object) -> None:
    """Drop a result where a callback has to return None."""


def _why_nowhere(settings: RunSettings) -> str:
    if settings.needs_cpu:
        return (
            f"throttling needs a cgroup with the cpu controller, and --cgroup {settings.cgroup} offers none here: "
            "run as root or in a delegated cgroup, or use --mode freeze"
        )
    return f"--cgroup {settings.cgroup} is not to be had on this machine"

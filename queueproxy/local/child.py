"""Runs the app: starts the command in its own session and cgroups, collects every process that ends below us.

The child joins its cgroups itself, between fork and exec, so no instruction of the app ever runs outside them. We are
the subreaper of all that the app leaves orphaned, so a double fork does not escape and no zombie stays. Signals go to
the app's first process; a kill goes to all.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

from queueproxy.local import procfs

__all__ = ["Child", "StartError", "describe_exit", "free_port", "name_process"]

_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

# Python ignores these, and an ignored signal stays ignored through exec: the app gets the defaults back (as
# subprocess.restore_signals does), together with those that we handle ourselves.
_OURS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGCHLD,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)


class StartError(Exception):
    """The command could not be started; `status` is what a shell exits with (126 not executable, 127 not found)."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def _prctl(option: int, argument: object) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)


def name_process(name: str) -> None:
    """The short name `ps -o comm` and `top` show."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()))


class Child:
    """The app's first process and whatever it leaves behind."""

    __slots__ = ("_popen", "identity", "on_exit", "on_stray", "pid", "status")

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        doors: Sequence[int],
        *,
        stdout: int | None = None,
    ) -> None:
        """Start `command`. `doors` are open cgroup.procs descriptors it writes itself into; `stdout` replaces its
        standard output."""
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self.status: int | None = None
        self.on_exit: Callable[[int], None] | None = None
        self.on_stray: Callable[[int, int], None] | None = None

        def join() -> None:
            # Runs in the forked child before exec: "0" is the writer itself, so no pid can go stale on the way.
            for door in doors:
                os.write(door, b"0")
            for ours in _OURS:
                signal.signal(ours, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())

        try:
            self._popen = subprocess.Popen(
                list(command), env=dict(environ), stdout=stdout, preexec_fn=join, start_new_session=True
            )
        except FileNotFoundError:
            raise StartError(f"command not found: {command[0]}", 127) from None
        except PermissionError:
            raise StartError(f"not executable: {command[0]}", 126) from None
        except (OSError, subprocess.SubprocessError) as error:
            raise StartError(f"cannot start {command[0]}: {error}", 126) from None
        self.pid = self._popen.pid
        stat = procfs.read_stat(self.pid)  # a zombie still has its line, and nobody but us can collect it
        assert stat is not None
        self.identity = procfs.Identity(self.pid, stat.started)

    def __repr__(self) -> str:
        return f"<Child {self.pid} {'running' if self.status is None else describe_exit(self.status)}>"

    @property
    def alive(self) -> bool:
        return self.status is None

    def reap(self) -> None:
        """Collect every ended process below us; tell of the app's end once, of others (the guardian) each time."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            if pid == self.pid:
                self.status = self._popen.returncode = code
                if self.on_exit is not None:
                    self.on_exit(code)
            elif self.on_stray is not None:
                self.on_stray(pid, code)

    def signal(self, signum: int) -> None:
        """Send a signal to the app's first process, if it still runs."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def rest(self) -> list[int]:
        """Processes of the app's session that still live, the first one included."""
        return [stat.pid for stat in procfs.in_session(self.pid)]


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on now. The app binds it a moment later; a loser of that race fails to bind and says so."""
    import socket

    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def describe_exit(status: int) -> str:
    """An exit in words."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"

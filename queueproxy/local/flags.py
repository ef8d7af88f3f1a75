"""Runs the command line of local mode: flags of `queueproxy run` and `queueproxy thaw-all`, their help texts and exit
codes.

Nothing heavy is imported before `run` has forked its guardian: that process keeps what was loaded by then.
"""

from __future__ import annotations

import argparse
import os
import sys

from queueproxy.local.settings import MODES, THROTTLE, WAYS, RunSettings, duration, duration_or_off

__all__ = ["parse_run", "run_main", "thaw_all_main"]

EX_USAGE = 64  # bad configuration, as everywhere in this package

_RUN_TEXT = """\
Start COMMAND with PORT set, serve it on --port, and put it to sleep between requests.

The command runs in a cgroup of its own (or, where none is writable, under SIGSTOP and
SIGCONT). After --freeze-after without a request it is frozen; the next request wakes it and
is passed on once the kernel confirms. Whatever ends us, nothing stays frozen."""

_RUN_EXAMPLES = """\
examples:
  queueproxy run -- node server.js                                 the app listens on $PORT
  queueproxy run --app-port 3000 -- uvicorn app:app --port 3000    it is told its port in its own way
  queueproxy run -- sh -c 'exec python3 -m http.server "$PORT"'    the same, with a port of our choice
  queueproxy run --freeze-after 5s --ready-path /healthz -- ./app  ready when /healthz says so
  queueproxy run --mode shadow -- ./app                            only say what would have happened
  queueproxy run --mode throttle -- ./app                          one hundredth of a CPU instead of none
  queueproxy run --json -- ./app | jq .                            events for machines

exit status: the app's own when it ends by itself (128 + signal), 0 after an orderly stop,
1 when we fail, 64 for wrong flags, 126 or 127 when COMMAND cannot be started."""

_THAW_TEXT = """\
Thaw everything that a killed `queueproxy run` or `queueproxy freezer` left frozen, and
remove the empty cgroups of runs.

Needs no running process: it reads the journals and looks for cgroups named like ours. What
belongs to a run that is alive is left alone without --force, and so are containers that are
frozen without being in the freezer's journal: a runtime may have paused them. A freezer
that is running is asked to thaw everybody."""

_THAW_EXAMPLES = """\
exit status: 0 when nothing (that may be touched) is left frozen, 1 otherwise."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(EX_USAGE, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")


def _seconds(text: str) -> float:
    try:
        return duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds_or_off(text: str) -> float | None:
    try:
        return duration_or_off(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"not a port: {text!r}")
    return int(text)


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"a path starts with a slash: {text!r}")
    return text


def run_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="queueproxy run",
        usage="queueproxy run [flags] -- COMMAND [ARGUMENT...]",
        description=_RUN_TEXT,
        epilog=_RUN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    defaults = RunSettings(())
    add = parser.add_argument
    add(
        "--port",
        type=_port,
        default=defaults.port,
        metavar="N",
        help="serve here (default 8012; 0: a free one, which is printed)",
    )
    add(
        "--host",
        default=defaults.host,
        metavar="ADDRESS",
        help="address to serve on (default 127.0.0.1; 0.0.0.0 for everyone)",
    )
    add(
        "--app-port",
        type=_port,
        default=0,
        metavar="N",
        help="port the app listens on, given to it as PORT (default: a free one)",
    )
    add(
        "--freeze-after",
        type=_seconds_or_off,
        default=1.0,
        metavar="TIME",
        help="idle time before sleep: 500ms, 1s, 1m30s, off (default 1s)",
    )
    add(
        "--throttle-after",
        type=_seconds_or_off,
        default=None,
        metavar="TIME",
        help="idle time before the CPU is squeezed to 1%% (default off)",
    )
    add(
        "--mode",
        choices=MODES,
        default=defaults.mode,
        help="freeze (default); throttle: 1%% of a CPU instead; shadow: only count what would happen",
    )
    add(
        "--cgroup",
        choices=WAYS,
        default="auto",
        help="how to stop the app: cgroup v2, v1 freezer, signals, or the first that works (default auto)",
    )
    add(
        "--min-uptime",
        type=_seconds,
        default=0.0,
        metavar="TIME",
        help="stay awake this long after the app became ready (default 0)",
    )
    add(
        "--ready-path",
        type=_path,
        default=None,
        metavar="PATH",
        help="ready when GET PATH answers 200-399 (default: when the port accepts)",
    )
    add(
        "--start-timeout",
        type=_seconds,
        default=30.0,
        metavar="TIME",
        help="say so when the app is not ready after this (default 30s)",
    )
    add(
        "--grace",
        type=_seconds,
        default=10.0,
        metavar="TIME",
        help="time for requests and for the app to end on a signal (default 10s)",
    )
    add(
        "--metrics-port",
        type=_port,
        default=None,
        metavar="N",
        help="Prometheus metrics at /metrics here (default 9091; 0: none)",
    )
    add(
        "--json",
        action="store_true",
        help="events and a summary as JSON lines on stdout; the app's stdout goes to stderr",
    )
    add("-v", "--verbose", action="store_true", help="log every change of state")
    add("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="the app and its arguments, after --")
    return parser


def parse_run(argv: list[str]) -> RunSettings:
    """The flags as settings; exits with 64 and one line when they make no sense."""
    parser = run_parser()
    # Cut at the first "--" by hand: what follows is the app's, whatever it looks like.
    cut = argv.index("--") if "--" in argv else len(argv)
    flags = parser.parse_args(argv[:cut])
    command = flags.command + argv[cut + 1 :]
    if not command:
        parser.error("no command: queueproxy run [flags] -- COMMAND")
    if flags.port and flags.port == flags.app_port:
        parser.error(f"--port and --app-port are both {flags.port}: we listen on the one, the app on the other")
    freeze_after, throttle_after = flags.freeze_after, flags.throttle_after
    if flags.mode == THROTTLE:
        throttle_after, freeze_after = (freeze_after if throttle_after is None else throttle_after), None
    if freeze_after is not None and throttle_after is not None and throttle_after >= freeze_after:
        parser.error("--throttle-after comes before --freeze-after, or it never happens")
    return RunSettings(
        command=tuple(command),
        host=flags.host,
        port=flags.port,
        app_port=flags.app_port,
        mode=flags.mode,
        cgroup=flags.cgroup,
        freeze_after=freeze_after,
        throttle_after=throttle_after,
        min_uptime=flags.min_uptime,
        ready_path=flags.ready_path,
        start_timeout=flags.start_timeout,
        grace=flags.grace,
        metrics_port=9091 if flags.metrics_port is None else flags.metrics_port,
        json=flags.json,
        verbose=flags.verbose,
    )


def run_main(argv: list[str]) -> int:
    """`queueproxy run`."""
    settings = parse_run(argv)
    from queueproxy.local.run import run

    return run(settings)


def thaw_all_main(argv: list[str]) -> int:
    """`queueproxy thaw-all`."""
    parser = _Parser(
        prog="queueproxy thaw-all",
        description=_THAW_TEXT,
        epilog=_THAW_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per item on stdout")
    parser.add_argument(
        "--force",
        action="store_true",
        help="thaw what belongs to a living run as well (it thaws for the next request anyway), and every "
        "frozen container below kubepods",
    )
    parser.add_argument(
        "--stop", action="store_true", help="also end apps whose proxy is gone: SIGTERM, after 10 s SIGKILL"
    )
    parser.add_argument("--config", default="", metavar="FILE", help="the node freezer's configuration")
    flags = parser.parse_args(argv)
    from queueproxy.local.mend import thaw_all

    frozen = 0
    if os.geteuid() == 0 or flags.config:  # pods belong to root
        from queueproxy.freeze.node.commands import thaw_node

        frozen = thaw_node(flags.config, sys.stdout, as_json=flags.json, force=flags.force)
    code = thaw_all(os.geteuid(), os.environ, as_json=flags.json, force=flags.force, stop=flags.stop, out=sys.stdout)
    if frozen and not flags.json:
        sys.stdout.write(f"{frozen} pods or containers still frozen\n")
    return 1 if frozen else code

"""Runs the command line: picks the subcommand, imports only what it needs, returns its exit code.

`serve` is on the cold-start path, so it is dispatched before argparse (9 ms) is imported.
"""

from __future__ import annotations

import os
import sys

from queueproxy import __version__

EX_USAGE = 64

USAGE = """\
usage: queueproxy COMMAND [flags]

Knative's queue-proxy, rewritten, that also puts idle apps to sleep.

commands:
  serve      the sidecar: proxies, limits, counts and probes as its environment says
  freezer    the node's freezer: freezes and thaws pods for their sidecars
  status     the pods of this node, asleep and awake
  doctor     what this node can do, what that means, what to do
  run        start any web app, serve it, and freeze it between requests
  thaw-all   thaw everything a killed `run` or freezer left frozen
  bench      measure CPU per request, latency, memory and wake time

`queueproxy COMMAND --help` says more. Version: `queueproxy --version`.
"""

SERVE_USAGE = """\
usage: queueproxy serve [--loop auto|uvloop|asyncio]

The Knative sidecar. Everything else comes from the environment, as the controller injects it
(SERVING_*, QUEUE_SERVING_PORT, USER_PORT, CONTAINER_CONCURRENCY, ...); all that is wrong with
it is said at once.

flags:
  --loop KIND   event loop: uvloop where installed (auto, the default), uvloop, or asyncio

exit status: 0 after an orderly drain, 1 when the configuration is wrong, a port is taken, or a
second SIGTERM arrives.
"""


def main(argv: list[str] | None = None) -> int:
    """Exit code of the chosen subcommand; 64 for a wrong command line."""
    arguments = sys.argv[1:] if argv is None else argv
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command == "serve":
        return _serve(rest)
    if command in ("freezer", "status", "doctor"):
        from queueproxy.freeze.node import commands

        mains = {"freezer": commands.freezer_main, "status": commands.status_main, "doctor": commands.doctor_main}
        return mains[command](rest)
    if command == "run":
        from queueproxy.local.flags import run_main

        return run_main(rest)
    if command == "thaw-all":
        from queueproxy.local.flags import thaw_all_main

        return thaw_all_main(rest)
    if command == "bench":
        from queueproxy.bench.flags import bench_main

        return bench_main(rest)
    if command in ("-h", "--help", "help"):
        sys.stdout.write(USAGE)
        return 0
    if command == "--version":
        sys.stdout.write(f"queueproxy {__version__}\n")
        return 0
    sys.stderr.write(f"queueproxy: unknown command {command!r}\n\n{USAGE}" if command else USAGE)
    return EX_USAGE


def _serve(arguments: list[str]) -> int:
    loop_kind = "auto"
    rest = list(arguments)
    while rest:
        flag = rest.pop(0)
        if flag in ("-h", "--help"):
            sys.stdout.write(SERVE_USAGE)
            return 0
        name, equals, value = flag.partition("=")
        if name == "--loop":
            value = value if equals else rest.pop(0) if rest else ""
            if value in ("auto", "uvloop", "asyncio"):
                loop_kind = value
                continue
        sys.stderr.write(f"queueproxy serve: wrong argument {flag!r}\n\n{SERVE_USAGE}")
        return EX_USAGE
    from queueproxy.app import serve

    return serve(os.environ, loop_kind=loop_kind)

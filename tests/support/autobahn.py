"""Installs and runs Autobahn|Testsuite, which needs Python 2.7: in an environment of its own, kept beside ours.

Nothing of it is imported. A machine without Python 2.7 or without a package index cannot judge; `Unavailable` says why.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

SUITE = "autobahntestsuite==25.10.1"
VIRTUALENV = "virtualenv==20.15.1"  # the last that makes environments for 2.7
BUILD_WITHIN = 900.0  # seconds; wsaccel, ujson and cffi may be compiled: 180 s on a busy machine


class Unavailable(Exception):
    """The suite cannot run here; the text is the reason."""


class Verdict(NamedTuple):
    """What the fuzzer found in one case: OK, NON-STRICT, INFORMATIONAL, UNIMPLEMENTED, FAILED, WRONG CODE, UNCLEAN."""

    behavior: str
    close: str


def installed() -> Path:
    """The `wstest` command, installed now if it is not yet there. Raises Unavailable."""
    home = _home()
    home.mkdir(parents=True, exist_ok=True)
    wstest = home / "py2" / "bin" / "wstest"
    with _locked(home / "lock"):
        stamp = home / "installed"
        if not (stamp.exists() and stamp.read_text() == SUITE):
            python = _python2()
            tool = home / "py3"
            _run("a Python 3 environment", [sys.executable, "-m", "venv", "--clear", str(tool)])
            _run(VIRTUALENV, [str(tool / "bin" / "pip"), "install", "-q", VIRTUALENV])
            _run(
                "a Python 2.7 environment",
                [str(tool / "bin" / "virtualenv"), "-q", "--clear", "-p", python, str(home / "py2")],
            )
            _run(SUITE, [str(home / "py2" / "bin" / "pip"), "install", "-q", SUITE])
            _run("wstest", [str(wstest), "--autobahnversion"])
            stamp.write_text(SUITE)
    return wstest


def specification(outdir: Path, servers: dict[str, str], cases: Sequence[str], without: Sequence[str] = ()) -> Path:
    """A fuzzingclient's orders, as a file: agent name -> URL, in the order given."""
    orders = {
        "outdir": str(outdir),
        "servers": [{"agent": agent, "url": url} for agent, url in servers.items()],
        "cases": list(cases),
        "exclude-cases": list(without),
        "exclude-agent-cases": {},
    }
    path = outdir.with_suffix(".spec.json")
    path.write_text(json.dumps(orders))
    return path


def verdicts(outdir: Path) -> dict[str, dict[str, Verdict]]:
    """agent -> case -> verdict, from the index the fuzzer leaves when it is done."""
    index = json.loads((outdir / "index.json").read_text())
    return {
        agent: {case: Verdict(found["behavior"], found["behaviorClose"]) for case, found in cases.items()}
        for agent, cases in index.items()
    }


def _home() -> Path:
    """Beside the environment that runs the tests; in the user's cache when that is the system's."""
    if sys.prefix != sys.base_prefix:
        return Path(sys.prefix) / "autobahn"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "queueproxy-autobahn"


def _python2() -> str:
    """A Python 2.7 that runs; pyenv's shims may be on the path without one behind them."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [str(path) for path in sorted(root.glob("versions/2.7*/bin/python2.7"))]
    if on_path := shutil.which("python2.7"):
        candidates.append(on_path)
    for candidate in candidates:
        found = subprocess.run([candidate, "-c", "import ssl, zlib"], capture_output=True, timeout=30)
        if found.returncode == 0:
            return candidate
    raise Unavailable(f"no working python2.7 (tried {', '.join(candidates) or 'PATH and pyenv'})")


def _run(what: str, command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_WITHIN)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{what}: {error}") from error
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise Unavailable(f"{what}: {last[0] if last else 'failed without a word'}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One installer at a time; the others wait and find it done."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

"""Real web servers under `queueproxy run`: asleep for seconds, woken twenty times by clients at once, not one failed
request.

Five servers run at the same time, so the whole costs what one of them costs. Each app ticks and notes its requests on
the machine's monotonic clock: no tick may fall into a nap the kernel confirmed, and no request may reach the app
inside one.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from queueproxy.net.sockdiag import accept_queue
from tests.support.local_run import LocalRun

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.xdist_group("runs"),
    pytest.mark.timeout(240),
]

WAKES = 20
CLIENTS = 5
ASLEEP_FOR = 3.0
APPS = Path(__file__).parents[1] / "support" / "servers"
GUNICORN = [sys.executable, "-m", "gunicorn", "--chdir", str(APPS), "--bind", "127.0.0.1:{port}", "--workers", "1"]

SERVERS = {
    "uvicorn": [
        sys.executable, "-m", "uvicorn", "--app-dir", str(APPS), "--port", "{port}", "--log-level", "error", "asgi:app"
    ],
    # The sync worker's watchdog counts time asleep as time stuck: without --timeout 0 it kills the worker at the wake.
    "gunicorn-sync": [*GUNICORN, "--timeout", "0", "wsgi:app"],
    "gunicorn-gthread": [*GUNICORN, "--worker-class", "gthread", "--threads", "8", "--timeout", "0", "wsgi:app"],
    "aiohttp": [sys.executable, str(APPS / "aio.py"), "{port}"],
    "node": ["node", str(APPS / "app.js"), "{port}"],
}  # fmt: skip


def command(name: str) -> list[str]:
    """The port comes as $PORT; a shell puts it where each server wants it."""
    words = " ".join(word.replace("{port}", "$PORT") for word in SERVERS[name])
    return ["sh", "-c", f"exec {words}"]


async def ask(session: aiohttp.ClientSession, port: int) -> str | None:
    """What went wrong with one request, or None."""
    try:
        async with session.get(f"http://127.0.0.1:{port}/", timeout=aiohttp.ClientTimeout(total=10)) as response:
            body = await response.text()
            return None if (response.status, body) == (200, "hello\n") else f"{response.status} {body!r}"
    except (aiohttp.ClientError, TimeoutError) as error:
        return repr(error)


async def sleep_and_wake(run: LocalRun) -> list[str]:
    """Twenty times: wait for sleep, stay asleep for three seconds, wake by clients that all ask at once."""
    failures: list[str] = []
    loop = asyncio.get_running_loop()
    app_port = run.started["app_port"]
    # One client keeps its connections between naps as browsers do; each wake adds fresh ones.
    async with aiohttp.ClientSession() as keeping:
        for wake in range(1, WAKES + 1):
            await loop.run_in_executor(None, run.asleep, wake, 30.0)
            await asyncio.sleep(ASLEEP_FOR)
            waiting = accept_queue((app_port,)).get(app_port, 0)
            if waiting:
                failures.append(f"{waiting} connections dialled to a sleeping app")  # FZ-035
            async with aiohttp.ClientSession() as fresh:
                answers = await asyncio.gather(
                    ask(keeping, run.port), *(ask(fresh, run.port) for _ in range(CLIENTS - 1))
                )
            failures += [answer for answer in answers if answer is not None]
    return failures


@pytest.mark.fz("FZ-030", "FZ-031", "FZ-033", "FZ-035", "FZ-145")
def test_five_servers_sleep_and_wake_without_one_failed_request() -> None:
    if shutil.which("node") is None:
        pytest.fail("node is missing: `make test` installs it")
    runs = {
        name: LocalRun("--freeze-after", "300ms", "--cgroup", "v2" if index % 2 else "v1", command=command(name))
        for index, name in enumerate(SERVERS)
    }
    try:
        for run in runs.values():
            run.ready()

        async def everyone() -> list[list[str]]:
            return await asyncio.gather(*(sleep_and_wake(run) for run in runs.values()))

        failures = dict(zip(runs, asyncio.run(everyone()), strict=True))
        for run in runs.values():
            run.asleep(WAKES + 1, 30.0)
    finally:
        for run in runs.values():
            run.__exit__(None, None, None)
    assert failures == {name: [] for name in SERVERS}
    for name, run in runs.items():
        check(name, run)


def check(name: str, run: LocalRun) -> None:
    naps, ticks = run.naps(), run.ticks()
    requests = [float(line.split()[1]) for line in run.output if line.startswith("request ")]
    assert len(naps) == WAKES + 1, name
    assert all(ended - began >= ASLEEP_FOR - 0.1 for began, ended in naps[:WAKES]), name
    assert len(requests) == WAKES * CLIENTS, name
    for what, instants in (("tick", ticks), ("request", requests)):
        inside = [at for at in instants if any(began < at < ended for began, ended in naps)]
        assert inside == [], f"{name}: {what} while asleep"
    assert len(ticks) > WAKES, f"{name}: the app hardly ever ticked, so its silence proves nothing"
    summary = run.event("summary")
    assert summary["exit_status"] == 0, f"{name}: {summary} {run.output[-5:]}"
    assert (summary["requests"], summary["wakes"]) == (WAKES * CLIENTS, WAKES + 1), name
    assert run.left_behind() == [], name


@pytest.mark.fz("FZ-084", "FZ-149")
@pytest.mark.parametrize("killed", [pytest.param(True, id="with 2 s"), pytest.param(False, id="with none")])
def test_gunicorns_watchdog_kills_workers_that_slept_longer_than_its_timeout(killed: bool) -> None:
    """At the wake, master and workers race: whoever's turn comes first decides. Six workers, and a few naps, decide
    it."""
    many = [word.replace("{port}", "$PORT") for word in GUNICORN[:-1]]
    words = ["sh", "-c", "exec " + " ".join([*many, "6", "--timeout", "2" if killed else "0", "wsgi:app"])]

    def timeouts(run: LocalRun) -> list[str]:
        return [line for line in list(run.output) if "WORKER TIMEOUT" in line]

    with LocalRun("--cgroup", "v2", "--freeze-after", "300ms", command=words) as run:
        run.ready()
        for nap in range(1, 9 if killed else 4):
            run.asleep(nap, 30.0)
            time.sleep(3.0)  # the nap itself: longer than the watchdog
            run.get()
            run.asleep(nap + 1, 30.0)
            if timeouts(run):
                break
        assert bool(timeouts(run)) is killed, run.output[-20:]


def test_the_servers_are_the_real_ones() -> None:
    for name in ("uvicorn", "gunicorn", "aiohttp"):
        assert subprocess.run([sys.executable, "-c", f"import {name}"], check=False).returncode == 0, name
    assert os.access(shutil.which("node") or "", os.X_OK)

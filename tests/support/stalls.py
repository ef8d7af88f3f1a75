"""A pytest plugin: a test that failed while the machine stood still, or had no core for it, is asked again, and the end
of the run says so.

The tests measure real time against real processes: a probe's 50 ms, a freezer's 0.3 s. On a shared machine the
hypervisor sometimes takes a core away for longer than that, or other tests have them all, and then a failure says
nothing about the code. Two witnesses tell each test worker of that. A process for each core does nothing but sleep 5
ms at a time, and notes when it was more. The kernel counts for how long somebody was ready to run and had to wait
(/proc/pressure/cpu, where there is one). Only when one of them has something to tell, and at most twice, is the test
run again (by pytest-rerunfailures); any other failure stands at once, and one that comes back stands too. Every such
test is named with its stall and its first failure in the summary: whether that was the machine's doing is for the
reader to judge. Only tests marked `clock` are asked again: what they assert is how long something took. That nothing
is lost, answered twice or left frozen has no margin, and a failure there counts on any machine.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_rerunfailures import StatusDB

STALL = 0.025  # seconds; the shortest margin that the tests leave to the machine (a 50 ms probe step seen at 75 ms)
CONTENDED = 0.1  # seconds; a tenth of what most tests with a clock allow for
RERUNS = 2

# One for each core: a host that takes one away leaves whoever runs on the other none the wiser.
_WITNESS = """
import os, select, time
cores = sorted(os.sched_getaffinity(0))[:16]
mine = cores[0]
for core in cores[1:]:
    if not os.fork():
        mine = core
        break
os.sched_setaffinity(0, {mine})
end = select.poll()
end.register(1, 0)  # POLLERR: nobody listens any more
before = time.monotonic()
if mine == cores[0]:
    os.write(1, b"%d\\n" % os.getpid())
while not end.poll(5):
    now = time.monotonic()
    if now - before >= 0.01:
        try:
            os.write(1, b"%.4f\\n" % (now - before))
        except BlockingIOError:
            pass
    before = now
"""


class Witness:
    """Notes for how long a core ran nothing of ours; `pid` is the first core's sleeping process."""

    def __init__(self) -> None:
        self._pipe, theirs = os.pipe()
        os.set_blocking(theirs, False)
        # Through a shell that ends: the tests count the children of their own process.
        start = ["sh", "-c", '"$0" -I -S -c "$1" 2>/dev/null &', sys.executable, _WITNESS]
        subprocess.run(start, stdin=subprocess.DEVNULL, stdout=theirs, check=True)
        os.close(theirs)
        self.pid = 0
        self._rest = b""
        while not self.pid:
            self.stalls()
        os.set_blocking(self._pipe, False)

    def stalls(self) -> list[float]:
        """The gaps, in seconds, that were noted since the last call."""
        told = b""
        with contextlib.suppress(BlockingIOError):
            told = os.read(self._pipe, 65536)  # the whole pipe
            if not told and not self.pid:
                raise RuntimeError("the witness did not start")
        lines = (self._rest + told).split(b"\n")
        self._rest = lines.pop()
        for line in [line for line in lines if b"." not in line]:
            self.pid = int(line)
            lines.remove(line)
        return [float(line) for line in lines]

    def close(self) -> None:
        """The witness ends by itself when it notices."""
        os.close(self._pipe)


def waited() -> float:
    """Seconds, since boot, in which some task was ready and had no core; 0.0 where the kernel does not count them."""
    try:
        with open("/proc/pressure/cpu") as pressure:
            return int(pressure.readline().rpartition("total=")[2]) / 1e6
    except (OSError, ValueError):
        return 0.0


class Judge:
    """Says of a failed test whether the machine stood still for `STALL` while it ran, or was contended for as long as
    `CONTENDED`."""

    def __init__(self, witness: Witness) -> None:
        self.witness = witness
        self.longest = 0.0
        self.waited = 0.0  # before the attempt

    def harmed(self) -> bool:
        """Whether the running attempt's failure is to be doubted."""
        self.longest = max([self.longest, *self.witness.stalls()])
        return self.longest >= STALL or waited() - self.waited >= CONTENDED

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Every attempt starts without a stall."""
        self.witness.stalls()
        self.longest = 0.0
        self.waited = waited()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        """What the machine did travels with the report, from a worker to the terminal too."""
        report = yield
        if report.failed or report.outcome == "rerun":
            self.harmed()
            report.user_properties.append(("stall", round(self.longest, 4)))
            report.user_properties.append(("waited", round(waited() - self.waited, 4)))
        return report

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """The long tests are exempt: their figures are read by people."""
        for item in items:
            if item.get_closest_marker("clock") and not item.get_closest_marker("long"):
                item.add_marker(pytest.mark.flaky(reruns=RERUNS, condition=self.harmed))

    def pytest_unconfigure(self) -> None:
        """Ends the witness with its worker."""
        self.witness.close()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Whoever runs tests gets a witness: each worker of a divided run, or the only process."""
    worker = hasattr(config, "workerinput")
    if worker or not getattr(config.option, "numprocesses", None):
        config.pluginmanager.register(Judge(Witness()), "stalls")
    if worker:
        # Theirs asks the terminal's process over a socket before every test, in case a worker crashes: 20 ms each.
        theirs: Any = config.failures_db  # type: ignore[attr-defined]
        theirs.sock.close()
        config.failures_db = StatusDB()  # type: ignore[attr-defined]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names what was asked again; a dot must not hide it."""
    again = terminalreporter.stats.get("rerun", [])
    if not again:
        return
    terminalreporter.section("asked again: the machine stood still meanwhile, or was contended", yellow=True)
    for report in again:
        known = dict(report.user_properties)
        stall, contended = (known.get(name, 0.0) * 1000 for name in ("stall", "waited"))
        terminalreporter.line(f"{report.nodeid} (stalled for {stall:.0f} ms, contended for {contended:.0f} ms)")
        crash = getattr(report.longrepr, "reprcrash", None)
        for line in str(crash.message if crash else report.longrepr).splitlines()[:3]:
            terminalreporter.line(f"    {line}")

"""slowhttptest: slow heads, bodies and readers hold their connections and nothing else; everybody else is served."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.judges import LINE_ORIGIN, Judged, Others, Watch, judged, needed, settled
from tests.support.sidecar import REQUEST

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("slow attacks")]

UNLIMITED_POOL = 1000  # idle connections kept without a limit (QP-203)
CONNECTIONS = 200
RATE = 50  # new ones per second: everybody shares two cores with the attacker, the app and both ends of every segment
SERVED_WITHIN = 1.0  # seconds
KIB = 1024
# What one held connection may cost, in memory of ours. Measured: 4 to 21 KiB with half a head, 7 to 24 with half a body
# and its connection to the app. A reader that takes nothing leaves one read of the app's answer with us, 128 KiB at
# most (net.dial.RECEIVE, doubled by the kernel), and what of the write before it the kernel did not take: 127 to 143.
HEAD_COSTS, BODY_COSTS, READER_COSTS = 32 * KIB, 36 * KIB, 192 * KIB
STANDING_FLAT = 3 * KIB * KIB  # growth while the attack stands; measured 0.1 to 0.5 MiB, the sum of the heads so far
HEAD_WITHIN = 60  # seconds to receive a head (QP-049)

SLOW_HEADS = ("-H", f"http://127.0.0.1:{REQUEST}/")
SLOW_BODIES = ("-B", f"http://127.0.0.1:{REQUEST}/")
# The answer is far larger than the kernel's buffers on both sides, the window a fraction of a segment, a read 32 bytes.
SLOW_READERS = ("-X", f"http://127.0.0.1:{REQUEST}/bytes/8000000", "-w", "512", "-y", "1024", "-n", "1", "-z", "32")


class Attack:
    """slowhttptest at work. `report()` waits for its end."""

    def __init__(self, stage: Judged, seconds: int, mode: str, url: str, *options: str) -> None:
        self.process = stage.namespace.popen(
            ["slowhttptest", mode, "-u", url, "-c", str(CONNECTIONS), "-r", str(RATE), "-i", "1", "-l", str(seconds),
             *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._seconds = seconds

    def report(self) -> str:
        out, _ = self.process.communicate(timeout=self._seconds + 20.0)
        return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", out)


@contextmanager
def attacked(seconds: int, how: tuple[str, ...], **environment: str) -> Iterator[tuple[Judged, Attack]]:
    needed("slowhttptest", "slowhttptest")
    with judged(LINE_ORIGIN, **environment) as stage:
        attack = Attack(stage, seconds, *how)
        try:
            yield stage, attack
        finally:
            if attack.process.poll() is None:
                attack.process.kill()
                attack.process.wait()


def stand(seconds: int, how: tuple[str, ...], *, costs: int, pool_limit: int = UNLIMITED_POOL, **env: str) -> str:
    """An attack from beginning to end: others are served, memory is in proportion and then flat, all is given back."""
    with attacked(seconds, how, **env) as (stage, attack):
        fresh = stage.sidecar.rss
        with Others(stage.sidecar) as others:
            settled(lambda: stage.clients >= CONNECTIONS, "the attack stands", within=seconds)
            with Watch(stage.sidecar) as standing:
                report = attack.report()
        assert "Hit test time limit" in report or "No open connections left" in report, report[-500:]
        assert not others.failures, others.failures[:5]
        assert len(others.took) > seconds * 5  # a quarter of what was meant: nobody stood still
        assert max(others.took) < SERVED_WITHIN, sorted(others.took)[-5:]
        assert standing.peak - fresh < CONNECTIONS * costs, (standing.peak - fresh) / CONNECTIONS
        if how is not SLOW_READERS:  # readers are still being filled when the last of them has connected
            assert standing.peak - standing.before < STANDING_FLAT
        assert standing.second_half_growth() < STANDING_FLAT
        stage.assert_at_rest(pool_limit=pool_limit)
        return report


@pytest.mark.qp("QP-049", "QP-145")
def test_slow_heads_take_no_slot_and_little_memory() -> None:
    """With a single slot: half a head is no request yet, so it takes neither the slot nor a place in the queue."""
    stand(15, SLOW_HEADS, costs=HEAD_COSTS, pool_limit=1, CONTAINER_CONCURRENCY="1")


@pytest.mark.qp("QP-074", "QP-204")
def test_slow_bodies_hold_only_their_own_connections() -> None:
    stand(15, SLOW_BODIES, costs=BODY_COSTS)


@pytest.mark.qp("QP-070", "QP-204")
def test_slow_readers_leave_one_read_of_their_answer_with_us() -> None:
    stand(15, SLOW_READERS, costs=READER_COSTS)


@pytest.mark.long
@pytest.mark.timeout(200)
@pytest.mark.qp("QP-049")
def test_a_head_that_takes_longer_than_a_minute_is_hung_up_on() -> None:
    """The attacker would go on for 90 s and finds every connection closed before that."""
    report = stand(90, SLOW_HEADS, costs=HEAD_COSTS, pool_limit=1, CONTAINER_CONCURRENCY="1")
    assert "No open connections left" in report, report[-500:]
    ended = re.search(r"Test ended on (\d+)\w\w second", report)
    assert ended is not None, report[-500:]
    ramp = CONNECTIONS // RATE
    assert HEAD_WITHIN <= int(ended[1]) <= HEAD_WITHIN + ramp + 8  # it looks every few seconds


@pytest.mark.long
@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("how", "costs"), [(SLOW_BODIES, BODY_COSTS), (SLOW_READERS, READER_COSTS)], ids=["bodies", "readers"]
)
def test_a_longer_attack_costs_no_more(how: tuple[str, ...], costs: int) -> None:
    stand(45, how, costs=costs)

"""What stands between gate and freezer: the real gate and policy, a client whose freezer is a script."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from queueproxy.clock import monotonic
from queueproxy.freeze.address import Address
from queueproxy.freeze.annotations import DEFAULTS, Mode
from queueproxy.freeze.gate import Gate
from queueproxy.freeze.mounts import Way
from queueproxy.freeze.podsleep import PodSleep
from queueproxy.freeze.policy import IdlePolicy, IdleSettings, State
from queueproxy.freeze.vocabulary import Ask, Rung
from queueproxy.freeze.watch import GateWatch
from queueproxy.metrics.pause import PauseCounts
from tests.support.rawhttp import PATIENCE
from tests.support.scripted_freezer import EAGER, ScriptedFreezer

RUNNING, FROZEN = Rung.RUNNING, Rung.FROZEN
NOBODYS_PORT = 1  # nothing listens there


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def debug(self, message: str, /, **fields: object) -> None:
        self.lines.append(("debug", message, fields))

    def info(self, message: str, /, **fields: object) -> None:
        self.lines.append(("info", message, fields))

    def warning(self, message: str, /, **fields: object) -> None:
        self.lines.append(("warning", message, fields))

    def said(self, message: str) -> list[str]:
        return [level for level, text, _ in self.lines if text == message]


class Scene:
    def __init__(self, loop: asyncio.AbstractEventLoop, token: Path, freezer: ScriptedFreezer) -> None:
        self.log, self.counts, self.woke = Log(), PauseCounts(0.0), 0
        way = Way(Address("127.0.0.1", freezer.port), str(token), DEFAULTS)
        self.sleep = PodSleep(loop, way, self.log, self.counts, self.wake, Random(1))
        watch = GateWatch(self.counts)
        self.gate = Gate(
            IdlePolicy(IdleSettings()),
            loop,
            self.sleep.client,
            drop_pool=lambda: None,
            look=lambda look, looked: looked(look.number, None),
            observers=(self.sleep, watch),
        )
        self.sleep.attach(self.gate, watch, NOBODYS_PORT, range(2, 65536))
        self.let_down: Callable[[float, str], None] | None = None
        self.running = False  # a probe
        self.on_result: Callable[[bool], None] = lambda ready: None
        self.waits_told = False
        self.sleep.watch(self, self)

    def wake(self) -> None:
        self.woke += 1

    def tell_waits(self, *, on: bool) -> None:
        self.waits_told = on

    async def until(self, what: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not what():
                await asyncio.sleep(0.002)


def play(tmp_path: Path, scene: Callable[[Scene, ScriptedFreezer], Any], **freezer_is: object) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    freezer = ScriptedFreezer()
    for name, value in freezer_is.items():
        setattr(freezer, name, value)

    async def whole() -> None:
        the = Scene(asyncio.get_running_loop(), token, freezer)
        try:
            await scene(the, freezer)
        finally:
            the.gate.close()
            the.sleep.close()

    try:
        asyncio.run(whole())
    finally:
        freezer.close()


@pytest.mark.fz("FZ-014", "FZ-110")
def test_the_policy_is_off_until_there_is_a_freezer_and_then_has_its_terms(tmp_path: Path) -> None:
    async def scene(the: Scene, freezer: ScriptedFreezer) -> None:
        assert the.gate.policy.state is State.DISABLED and the.gate.policy.reason(0.0) == "no freezer yet"
        assert the.gate.is_open and the.counts.freezer_up is False
        the.sleep.begin()
        await the.until(lambda: the.counts.freezer_up)
        assert the.gate.policy.state is State.AWAKE and the.waits_told
        the.gate.ready()
        await the.until(lambda: freezer.rung is FROZEN)  # after 50 ms, as the freezer's policy says

    play(tmp_path, scene, policy=EAGER._replace(server_timing=True))


@pytest.mark.fz("FZ-102")
def test_each_confirmed_change_is_told_once_and_wakes_are_followed_by_a_real_probe(tmp_path: Path) -> None:
    async def scene(the: Scene, freezer: ScriptedFreezer) -> None:
        the.sleep.begin()
        the.gate.ready()
        await the.until(lambda: the.log.said("The app is frozen"))
        the.gate.touched("accept")
        await the.until(lambda: the.log.said("The app runs again"))
        assert the.log.said("The app is frozen") == ["info"] and the.woke == 1
        (fields,) = (fields for _, text, fields in the.log.lines if text == "The app runs again")
        assert fields["generation"] == 2 and fields["reason"] == "accept" and fields["mechanism"] == "scripted"

    play(tmp_path, scene)


@pytest.mark.slow
@pytest.mark.fz("FZ-098", "FZ-102")
def test_knocks_are_told_at_debug_level_and_need_no_probe(tmp_path: Path) -> None:
    async def scene(the: Scene, freezer: ScriptedFreezer) -> None:
        the.sleep.begin()
        the.gate.ready()
        await the.until(lambda: the.log.said("The app is frozen"))
        the.gate.touched("knock", 0.01)
        await the.until(lambda: len(the.log.said("The app is frozen")) == 2)
        assert the.log.said("The app runs again") == ["debug"]
        assert the.log.said("The app is frozen") == ["info", "debug"] and the.woke == 0

    play(tmp_path, scene)


@pytest.mark.slow
@pytest.mark.fz("FZ-084")
@pytest.mark.parametrize(
    ("waited", "harmed"),
    [pytest.param(True, True, id="it had waited for the thaw"), pytest.param(False, False, id="the app ran already")],
)
def test_a_first_request_that_finds_no_app_is_told_with_the_next_sleep(
    tmp_path: Path, waited: bool, harmed: bool
) -> None:
    async def scene(the: Scene, freezer: ScriptedFreezer) -> None:
        the.sleep.begin()
        the.gate.ready()
        await the.until(lambda: freezer.rung is FROZEN)
        came_at = monotonic()
        the.gate.arrived(came_at)
        await the.until(lambda: the.gate.is_open and the.log.said("The app runs again"))
        assert the.let_down is not None
        the.let_down(monotonic() + 9.0, "a later one")
        the.let_down(came_at if waited else monotonic(), "EOF")
        the.gate.left(monotonic())
        await the.until(lambda: freezer.rung is FROZEN)
        told = "harmed: the first request after a thaw failed: EOF"
        assert (freezer.puts[-1].reason == told) is harmed
        assert len(the.log.said("The first request after a thaw failed")) == harmed
        the.gate.touched("accept")
        await the.until(lambda: freezer.rung is RUNNING)
        await the.until(lambda: freezer.rung is FROZEN)
        assert not freezer.puts[-1].reason.startswith("harmed"), "told once"

    play(tmp_path, scene)


@pytest.mark.slow
@pytest.mark.fz("FZ-043")
def test_a_sleeping_app_is_woken_for_a_real_probe_and_sleeps_again_when_that_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queueproxy.freeze.deepcheck.SHORTEST", 0.05)

    async def scene(the: Scene, freezer: ScriptedFreezer) -> None:
        the.sleep.begin()
        the.gate.ready()
        the.on_result(True)
        for checks in (1, 2):
            await the.until(lambda: freezer.rung is FROZEN)
            await the.until(lambda checks=checks: the.woke == checks)  # time for the probe
            assert freezer.rung is RUNNING and freezer.puts[-1].reason == "deep check"
            the.running = True
            await asyncio.sleep(0.2)
            assert freezer.rung is RUNNING, "the probe is waited for"
            the.running = False
            the.on_result(True)
        assert the.log.said("The app runs again") == ["debug"] * 2
        the.sleep.terminate()
        await the.until(lambda: freezer.puts[-1].reason == "terminating")

    play(tmp_path, scene, policy=EAGER._replace(deep_check_s=0.1))


@pytest.mark.fz("FZ-067")
def test_a_failure_that_repeats_itself_is_told_once(tmp_path: Path) -> None:
    async def scene(the: Scene, freezer: ScriptedFreezer) -> None:
        for _ in range(3):
            the.sleep.answered(Ask(RUNNING, 7, "request"), None, "gone", 0.1, 0.0)
        the.sleep.answered(Ask(FROZEN, 8, "idle"), None, "gone", 0.1, 0.0)
        assert the.log.said("The app could not be woken") == ["warning"]
        assert the.log.said("The app could not be frozen") == ["warning"]

    play(tmp_path, scene)


@pytest.mark.slow
@pytest.mark.fz("FZ-014", "FZ-046")
def test_a_freezer_that_goes_is_told_once_and_opens_the_gate_for_good(tmp_path: Path) -> None:
    async def scene(the: Scene, freezer: ScriptedFreezer) -> None:
        the.sleep.begin()
        await the.until(lambda: the.counts.freezer_up)
        freezer.vanish()
        the.gate.ready()  # the next freeze does not get across
        await the.until(lambda: the.log.said("No freezer: the app stays awake"))
        assert the.counts.freezer_up is False and the.counts.freezer_faults()["connect"] > 0
        freezer.listen()
        await the.until(lambda: the.counts.freezer_up and the.gate.is_open)
        assert the.log.said("No freezer: the app stays awake") == ["warning"]

    play(tmp_path, scene)


@pytest.mark.fz("FZ-113")
def test_shadow_mode_of_the_terms_reaches_policy_and_metrics(tmp_path: Path) -> None:
    async def scene(the: Scene, freezer: ScriptedFreezer) -> None:
        the.sleep.begin()
        await the.until(lambda: the.counts.freezer_up)
        assert the.gate.policy.shadow
        the.gate.ready()
        await the.until(lambda: the.counts.shadow)
        assert the.counts.shadow == {"freeze": 1} and the.counts.state == "running" and freezer.puts == []

    play(tmp_path, scene, policy=EAGER._replace(mode=Mode.SHADOW))


@pytest.mark.fz("FZ-050")
def test_the_end_is_told_to_freezer_and_policy(tmp_path: Path) -> None:
    async def scene(the: Scene, freezer: ScriptedFreezer) -> None:
        the.sleep.begin()
        the.gate.ready()
        await the.until(lambda: freezer.rung is FROZEN)
        the.sleep.terminate()
        await the.until(lambda: the.gate.is_open and freezer.puts[-1].reason == "terminating")
        assert the.gate.policy.state is State.TERMINATING and freezer.rung is RUNNING

    play(tmp_path, scene)

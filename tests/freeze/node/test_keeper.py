"""The keeper on real cgroups, in this process: one pass from wish to answer, the journal before the kernel, what is put
off, what it does when the journal or the tree fails. The whole process is in `test_app.py`."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from queueproxy.freeze.annotations import DEFAULTS
from queueproxy.freeze.node.book import Book
from queueproxy.freeze.node.events import Events
from queueproxy.freeze.node.inventory import PodFacts
from queueproxy.freeze.node.journal import Journal
from queueproxy.freeze.node.keeper import LATER, Keeper
from queueproxy.freeze.node.ledger import Ledger, LedgerSettings
from queueproxy.freeze.node.record import Record
from queueproxy.freeze.node.sessions import Sessions
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import OldAction, Problem, StateRequest, View, Wanted
from queueproxy.log import LineWriter, Log
from tests.support.cgroupfs import Workload, real_cgroups
from tests.support.kubepods import Node

pytestmark = real_cgroups("")
SIDECAR = "b" * 64
Said = tuple[View | None, Problem | None, str]


@pytest.fixture
def node() -> Iterator[Node]:
    with Node("") as made:
        yield made


class WatchedJournal(Journal):
    """Calls `before` with each record that is to be written."""

    before: Callable[[Record], None] = staticmethod(lambda record: None)

    def write(self, record: Record) -> None:
        self.before(record)
        super().write(record)


class Stage:
    """A keeper, its journal, and a pod."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node = node
        self.folder = folder / "journal"
        self.pod = node.pod()
        self.work: Workload = node.run(self.pod.paths[0])
        self.file = Path(node.at(self.pod.paths[0]), "cgroup.events")
        self.facts = PodFacts(
            self.pod.uid, "shop", "cart-1", "n1", ("10.0.0.1",), "cart", "burstable",
            DEFAULTS._replace(min_uptime_s=0.0), self.pod.containers, SIDECAR, False, "",
        )  # fmt: skip
        self.fd = os.open(os.devnull, os.O_WRONLY)

    def keeper(self) -> Keeper:
        log = Log(LineWriter(self.fd))
        self.sessions = Sessions(lambda: "secret")
        self.journal = WatchedJournal(str(self.folder))
        keeper = Keeper(
            asyncio.get_running_loop(), Ledger(LedgerSettings(lease_cap=30.0)), self.node.tree(),
            self.journal, Book(Events("s"), log), self.sessions, log,
        )  # fmt: skip
        keeper.known(self.facts)
        return keeper

    @property
    def uid(self) -> str:
        return self.pod.uid

    @property
    def frozen(self) -> bool:
        return "frozen 1" in self.file.read_text()

    @property
    def record(self) -> Record | None:
        with Journal(str(self.folder)) as journal:
            return next((found for found in journal.records() if isinstance(found, Record)), None)

    def run(self, story: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(20):
                await story()

        try:
            uvloop.run(bounded())
        finally:
            os.close(self.fd)


@pytest.fixture
def stage(node: Node, tmp_path: Path) -> Stage:
    return Stage(node, tmp_path)


async def ask(keeper: Keeper, uid: str, wanted: Wanted, generation: int, **more: object) -> Said:
    """Until it is answered."""
    answered: asyncio.Future[Said] = asyncio.get_running_loop().create_future()
    fresh = bool(more.pop("fresh", True))
    request = StateRequest(wanted, generation, reason="test", **more)  # type: ignore[arg-type]
    keeper.asked(uid, request, lambda *said: answered.set_result(said), fresh=fresh)
    return await answered


@pytest.mark.fz("FZ-062", "FZ-092")
def test_the_journal_knows_of_a_freeze_before_the_kernel_and_forgets_it_after_the_thaw(stage: Stage) -> None:
    async def story() -> None:
        keeper = stage.keeper()
        stage.sessions.enter(stage.uid, 1, None, SIDECAR)
        seen: list[tuple[bool, Rung | None]] = []
        stage.journal.before = lambda record: seen.append((stage.frozen, record.rung))
        view, problem, _ = await ask(keeper, stage.uid, Wanted.IDLE, 1)
        assert view is not None and (view.rung, problem) == (Rung.FROZEN, None) and stage.frozen
        await asyncio.sleep(2 * LATER)
        assert seen[0] == (False, Rung.FROZEN)
        assert stage.record is not None and stage.record.proof == stage.sessions.proof(stage.uid)
        view, _, _ = await ask(keeper, stage.uid, Wanted.ACTIVE, 2)
        assert view is not None and view.rung is Rung.RUNNING and not stage.frozen
        await asyncio.sleep(2 * LATER)
        assert stage.record is None
        keeper.close()

    stage.run(story)


def test_a_thaw_is_usually_answered_before_asking_returns(stage: Stage) -> None:
    async def story() -> None:
        keeper = stage.keeper()
        at_once = 0
        for generation in range(1, 41, 2):
            await ask(keeper, stage.uid, Wanted.IDLE, generation)
            said: list[Said] = []
            wish = StateRequest(Wanted.ACTIVE, generation + 1)
            keeper.asked(stage.uid, wish, lambda *what, said=said: said.append(what))
            at_once += bool(said)
            while not said:
                await asyncio.sleep(0)
            assert said[0][1] is None
        assert at_once >= 10, "of 20; the others waited for a core"
        keeper.close()

    stage.run(story)


@pytest.mark.fz("FZ-061")
def test_everybody_who_asks_is_answered_exactly_once(stage: Stage) -> None:
    async def story() -> None:
        keeper, said = stage.keeper(), dict[int, list[Said]]()
        wishes = [Wanted.IDLE, Wanted.ACTIVE, Wanted.IDLE, Wanted.IDLE, Wanted.ACTIVE]
        for number, wanted in enumerate(wishes, 1):
            said[number] = []
            keeper.asked(stage.uid, StateRequest(wanted, number), lambda *what, to=said[number]: to.append(what))
        while not all(said.values()):
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert all(len(what) == 1 for what in said.values()) and not stage.frozen
        assert {what[0][1] for what in said.values()} <= {None, Problem.STALE_GENERATION}
        assert repr(keeper).endswith("waiting=0>")
        keeper.close()

    stage.run(story)


def test_a_journal_that_cannot_be_written_costs_the_freeze(stage: Stage) -> None:
    async def story() -> None:
        keeper = stage.keeper()

        def full(record: Record) -> None:
            raise OSError(28, "No space left on device")

        stage.journal.before = full
        _, problem, detail = await ask(keeper, stage.uid, Wanted.IDLE, 1)
        assert problem is Problem.NOT_CONFIRMED and "No space left" in detail and not stage.frozen
        stage.journal.before = lambda record: None
        assert (await ask(keeper, stage.uid, Wanted.ACTIVE, 2))[1] is None
        assert (await ask(keeper, stage.uid, Wanted.IDLE, 3))[1] is None and stage.frozen, "and not the next one"
        await ask(keeper, stage.uid, Wanted.ACTIVE, 4)
        keeper.close()

    stage.run(story)


@pytest.mark.fz("FZ-064")
def test_a_caller_whose_token_is_old_may_thaw_and_renew_but_not_fall_asleep(stage: Stage) -> None:
    async def story() -> None:
        keeper = stage.keeper()
        assert (await ask(keeper, stage.uid, Wanted.IDLE, 1, fresh=False))[1] is Problem.NOT_READY
        await ask(keeper, stage.uid, Wanted.IDLE, 1)
        view, problem, _ = await ask(keeper, stage.uid, Wanted.IDLE, 1, fresh=False)
        assert (problem, view and view.rung) == (None, Rung.FROZEN), "renewed"
        assert (await ask(keeper, stage.uid, Wanted.ACTIVE, 2, fresh=False))[1] is None and not stage.frozen
        assert (await ask(keeper, stage.uid, Wanted.IDLE, 2, fresh=False))[1] is Problem.NOT_READY
        keeper.close()

    stage.run(story)


@pytest.mark.fz("FZ-092")
def test_a_successor_adopts_what_it_finds(stage: Stage) -> None:
    async def story() -> None:
        first = stage.keeper()
        await ask(first, stage.uid, Wanted.IDLE, 7)
        await asyncio.sleep(2 * LATER)
        first.close()
        log = Log(LineWriter(stage.fd))
        second = Keeper(
            asyncio.get_running_loop(), Ledger(), stage.node.tree(), Journal(str(stage.folder)),
            Book(Events("s"), log), Sessions(lambda: "x"), log,
        )  # fmt: skip
        second.adopt()
        assert second.sidecar_of(stage.uid) == SIDECAR and second.sleepers() == [stage.uid] and stage.frozen
        view, _, _ = await ask(second, stage.uid, Wanted.ACTIVE, 8)
        assert view is not None and view.rung is Rung.RUNNING and not stage.frozen
        second.known(stage.facts)
        assert second.adopted == {} and second.wakers() == [stage.uid]
        second.close()

    stage.run(story)


@pytest.mark.fz("FZ-096")
def test_a_record_of_containers_that_are_gone_is_dropped(stage: Stage) -> None:
    async def story() -> None:
        keeper = stage.keeper()
        await ask(keeper, stage.uid, Wanted.IDLE, 7)
        await asyncio.sleep(2 * LATER)
        keeper.close()
        stage.work.close()
        stage.node.remove(stage.pod.paths[0], "")
        log = Log(LineWriter(stage.fd))
        second = Keeper(
            asyncio.get_running_loop(), Ledger(), stage.node.tree(), Journal(str(stage.folder)),
            Book(Events("s"), log), Sessions(lambda: "x"), log,
        )  # fmt: skip
        second.adopt()
        await asyncio.sleep(2 * LATER)
        assert second.adopted == {} and second.ledger.pods == {} and stage.record is None
        second.close()
        os.makedirs(stage.node.at(stage.pod.paths[0]))

    stage.run(story)


def test_a_pod_that_is_gone_is_thawed_and_forgotten_with_all_that_was_known_of_it(stage: Stage) -> None:
    async def story() -> None:
        keeper, gone = stage.keeper(), list[str]()
        keeper.on_gone = gone.append
        await ask(keeper, stage.uid, Wanted.IDLE, 1)
        await asyncio.sleep(2 * LATER)
        keeper.gone(stage.uid)
        while stage.uid in keeper.ledger.pods:
            await asyncio.sleep(0.001)
        await asyncio.sleep(2 * LATER)
        assert gone == [stage.uid] and not stage.frozen and stage.record is None
        assert keeper.book.pages == {} and repr(keeper).endswith("movers=0 waiting=0>")
        assert keeper.book.asleep(Rung.FROZEN) > 0, "the sum keeps it"
        keeper.close()

    stage.run(story)


@pytest.mark.fz("FZ-093")
def test_a_drain_says_when_nothing_is_held_any_more(stage: Stage) -> None:
    async def story() -> None:
        keeper, over = stage.keeper(), asyncio.Event()
        await ask(keeper, stage.uid, Wanted.IDLE, 1)
        keeper.on_idle = over.set
        keeper.drain()
        await over.wait()
        assert not stage.frozen
        assert (await ask(keeper, stage.uid, Wanted.IDLE, 2))[1] is Problem.DRAINING
        keeper.close()

    stage.run(story)


@pytest.mark.fz("FZ-069")
def test_the_protocol_of_old_confirms_pauses_that_may_not_be_and_never_a_resume_that_was_not(stage: Stage) -> None:
    async def story() -> None:
        keeper = stage.keeper()
        said: list[Said] = []

        def old(action: OldAction, uid: str = stage.uid, *, fresh: bool = True) -> Problem | None:
            said.clear()
            keeper.asked_of_old(uid, action, lambda *what: said.append(what), fresh=fresh)
            return said[0][1] if said else Problem.NOT_READY

        assert old(OldAction.PAUSE, "nobody") is None and old(OldAction.RESUME, "nobody") is None
        assert old(OldAction.PAUSE, fresh=False) is None and not stage.frozen
        keeper.known(stage.facts._replace(policy=DEFAULTS._replace(min_uptime_s=3600.0)))
        assert old(OldAction.PAUSE) is None and not stage.frozen, "the app can hardly have started"
        keeper.known(stage.facts)
        old(OldAction.PAUSE)
        while not said or not stage.frozen:
            await asyncio.sleep(0.001)
        assert said[0][1] is None
        old(OldAction.RESUME)
        while not said:
            await asyncio.sleep(0.001)
        assert said[0][1] is None and not stage.frozen
        keeper.close()

    stage.run(story)


def test_a_pod_nobody_knows_is_answered_so(stage: Stage) -> None:
    async def story() -> None:
        keeper = stage.keeper()
        said: list[Said] = []
        keeper.viewed("nobody", lambda *what: said.append(what))
        assert said == [(None, Problem.NOT_READY, "")]
        assert (await ask(keeper, "nobody", Wanted.IDLE, 1))[1] is Problem.NOT_READY
        assert not keeper.thaw("nobody", 0.0) and keeper.thaw(None, 0.0) and keeper.sidecar_of("nobody") == ""
        keeper.look_for_stop("nobody")
        keeper.look_at_cpu("nobody")
        keeper.close()

    stage.run(story)

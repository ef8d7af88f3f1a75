"""The idle policy: every state meets every event, then each promise on a timeline of its own."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from queueproxy.freeze.policy import (
    DROP_POOL,
    NOTHING,
    OPEN,
    TRANSITIONS,
    Ask,
    Effects,
    IdlePolicy,
    IdleSettings,
    Look,
    Moved,
    Refuse,
    Rung,
    State,
)
from tests.support.playbook import Event, Playbook, on

RUNNING, THROTTLED, FROZEN = Rung.RUNNING, Rung.THROTTLED, Rung.FROZEN

# === Every state meets every event. ===

STAGED = IdleSettings(throttle_after=1.0, freeze_after=2.0, min_uptime=10.0, thaw_retries=1)

GRACE = ["0 ready()", "10 on_deadline()"]
LOOKING = [*GRACE, "11 on_deadline()"]
THROTTLING = [*LOOKING, "11 looked(1, None)"]
ASLEEP = [*THROTTLING, "11 confirmed(1, THROTTLED)"]
DEEPENING = [*ASLEEP, "12 on_deadline()"]
FREEZING = [*DEEPENING, "12 looked(2, None)"]
FROZEN_FAST = [*FREEZING, "12 confirmed(2, FROZEN)"]
WAKING = [*FROZEN_FAST, "20 touched('knock')"]
RETRYING = [*WAKING, "20 failed(3, 'io')"]
STUCK = [*RETRYING, "20.1 on_deadline()", "20.1 failed(3, 'io')"]

# How to get there, what generation and look are the current ones, and which of the seven states it is.
STAGES: dict[str, tuple[list[str], int, int, State]] = {
    "disabled": (["0 ready()", "1 disabled('no freezer')"], 0, 0, State.DISABLED),
    "unready": ([], 0, 0, State.AWAKE),
    "held": (["0 ready()"], 0, 0, State.AWAKE),
    "busy": ([*GRACE, "20 arrived()"], 0, 0, State.AWAKE),
    "half-read": ([*GRACE, "20 reading_began()"], 0, 0, State.AWAKE),
    "busy+reading": ([*GRACE, "20 arrived()", "20 reading_began()"], 0, 0, State.AWAKE),
    "spent": ([*THROTTLING, "11 failed(1, 'io')", "11 confirmed(2, RUNNING)"], 2, 0, State.AWAKE),
    "grace": (GRACE, 0, 0, State.GRACE),
    "looking": (LOOKING, 0, 1, State.GRACE),
    "obstructed": ([*LOOKING, "11 looked(1, 'backlog')"], 0, 0, State.GRACE),
    "throttling": (THROTTLING, 1, 0, State.THROTTLED),
    "throttled": (ASLEEP, 1, 0, State.THROTTLED),
    "deepening": (DEEPENING, 1, 2, State.THROTTLED),
    "freezing": (FREEZING, 2, 0, State.FROZEN),
    "frozen": (FROZEN_FAST, 2, 0, State.FROZEN),
    "waking": (WAKING, 3, 0, State.WAKING),
    "waking busy": ([*FROZEN_FAST, "20 arrived()"], 3, 0, State.WAKING),
    "retrying": (RETRYING, 3, 0, State.WAKING),
    "stuck": (STUCK, 3, 0, State.WAKING),
    "terminating": ([*GRACE, "20 terminated()"], 0, 0, State.TERMINATING),
    "term. thawing": ([*FROZEN_FAST, "20 terminated()"], 3, 0, State.TERMINATING),
    "term. stuck": ([*STUCK, "20.2 terminated()", "20.2 failed(3, 'io')"], 3, 0, State.TERMINATING),
}

EVENTS: dict[str, Callable[[int, int], Event]] = {
    "arrived": lambda gen, look: on.arrived(),
    "finished": lambda gen, look: on.finished(),
    "began": lambda gen, look: on.reading_began(),
    "ended": lambda gen, look: on.reading_ended(),
    "touched": lambda gen, look: on.touched("accept"),
    "ready": lambda gen, look: on.ready(),
    "unready": lambda gen, look: on.unready(),
    "restarted": lambda gen, look: on.app_restarted(),
    "disabled": lambda gen, look: on.disabled("off"),
    "enabled": lambda gen, look: on.enabled(),
    "terminated": lambda gen, look: on.terminated(),
    "adopted0": lambda gen, look: on.adopted(gen, RUNNING),
    "adopted2": lambda gen, look: on.adopted(gen + 5, FROZEN),
    "woken": lambda gen, look: on.woken("operator"),
    "configured": lambda gen, look: on.configured(STAGED),
    "rungless": lambda gen, look: on.configured(IdleSettings(freeze_after=None)),
    "running": lambda gen, look: on.confirmed(gen, RUNNING),
    "throttled": lambda gen, look: on.confirmed(gen, THROTTLED),
    "frozen": lambda gen, look: on.confirmed(gen, FROZEN),
    "older": lambda gen, look: on.confirmed(gen - 1, FROZEN),
    "failed": lambda gen, look: on.failed(gen, "io"),
    "olderfail": lambda gen, look: on.failed(gen - 1, "io"),
    "clear": lambda gen, look: on.looked(look, None),
    "obstacle": lambda gen, look: on.looked(look, "backlog"),
    "olderlook": lambda gen, look: on.looked(look - 1, None),
    "early": lambda gen, look: on.on_deadline(),
    "due": lambda gen, look: on.on_deadline(),
}

# What each event does in each stage: the state it leads to (first letter), then asks for rungs (a: running, t, f),
# l: look, p: drop the pool, o: open, r: refuse. A dot is nothing at all, an exclamation mark a bug of the caller.
OUTCOMES = """
                arrived  finished  began  ended  touched  ready  unready  restarted  disabled
disabled              .         !      .      !        .      .        .          .         .
unready               .         !      .      !        .      .        .          .         D
held                  .         !      .      !        .      .        .          .         D
busy                  .         G      .      !        .      .        .          .         D
half-read             .         !      .      G        .      .        .          .         D
busy+reading          .         .      .      .        .      .        .          .         D
spent                 .         !      .      !        .      .        .          .         D
grace                 A         !      A      !        A      .        A          A         D
looking               A         !      A      !        A      .        A          A         D
obstructed            A         !      A      !        A      .        A          A         D
throttling           Wa         !     Wa      !       Wa      .       Wa         Wa        Wa
throttled            Wa         !     Wa      !       Wa      .       Wa         Wa        Wa
deepening            Wa         !     Wa      !       Wa      .       Wa         Wa        Wa
freezing             Wa         !     Wa      !       Wa      .       Wa         Wa        Wa
frozen               Wa         !     Wa      !       Wa      .       Wa         Wa        Wa
waking                .         !      .      !        .      .        .          .         .
waking busy           .         .      .      !        .      .        .          .         .
retrying              .         !      .      !        .      .        .          .         .
stuck                 .         !      .      !        .      .        .          .         .
terminating           .         !      .      !        .      .        .          .         .
term. thawing         .         !      .      !        .      .        .          .         .
term. stuck           .         !      .      !        .      .        .          .         .

                enabled  terminated  adopted0  adopted2  running  throttled  frozen  older  failed
disabled              A           X         .        Wa        .          .       .      .       .
unready               .           X         .        Wa        .          .       .      .       .
held                  .           X         .        Wa        .          .       .      .       .
busy                  .           X         .        Wa        .          .       .      .       .
half-read             .           X         .        Wa        .          .       .      .       .
busy+reading          .           X         .        Wa        .          .       .      .       .
spent                 .           X         .        Wa        .          .       .      .       .
grace                 .           X         .        Wa        .          .       .      .       .
looking               .           X         .        Wa        .          .       .      .       .
obstructed            .           X         .        Wa        .          .       .      .       .
throttling            .          Xa        Wa        Wa       Wa          .       F      .      Wa
throttled             .          Xa        Wa        Wa        .          .       .      .       .
deepening             .          Xa        Wa        Wa        .          .       .      .       .
freezing              .          Xa        Wa        Wa       Wa          T       .      .      Wa
frozen                .          Xa        Wa        Wa        .          .       .      .       .
waking                .           X        Wa        Wa       Ao          .       .      .       .
waking busy           .           X        Wa        Wa       Ao          .       .      .       .
retrying              .          Xa        Wa        Wa       Ao          .       .      .       .
stuck                 .          Xa        Wa        Wa       Ao          .       .      .       .
terminating           .           .         .        Xa        .          .       .      .       .
term. thawing         .           .        Xa        Xa       Xo          .       .      .       .
term. stuck           .           .        Xa        Xa       Xo          .       .      .       .

                olderfail  clear  obstacle  olderlook  early  due
disabled                .      .         .          .      .    .
unready                 .      .         .          .      .    .
held                    .      .         .          .      .    G
busy                    .      .         .          .      .    .
half-read               .      .         .          .      .    .
busy+reading            .      .         .          .      .    .
spent                   .      .         .          .      .    .
grace                   .      .         .          .      .   Gl
looking                 .    Tpt         .          .      .    .
obstructed              .      .         .          .      .   Gl
throttling              .      .         .          .      .   Wa
throttled               .      .         .          .      .   Tl
deepening               .     Ff         .          .      .    .
freezing                .      .         .          .      .   Wa
frozen                  .      .         .          .      .    .
waking                  .      .         .          .      .    .
waking busy             .      .         .          .      .    .
retrying                .      .         .          .      .   Wa
stuck                   .      .         .          .      .   Wa
terminating             .      .         .          .      .    .
term. thawing           .      .         .          .      .    .
term. stuck             .      .         .          .      .   Xa

                woken  configured  rungless
disabled            .           .         .
unready             .           .         D
held                .           .         D
busy                .           .         D
half-read           .           .         D
busy+reading        .           .         D
spent               .           .         D
grace               .           A         D
looking             .           A         D
obstructed          .           A         D
throttling         Wa          Wa        Wa
throttled          Wa          Wa        Wa
deepening          Wa          Wa        Wa
freezing           Wa          Wa        Wa
frozen             Wa          Wa        Wa
waking              .           .         .
waking busy         .           .         .
retrying            .           .         .
stuck               .           .         .
terminating         .           .         .
term. thawing       .           .         .
term. stuck         .           .         .
"""

LETTERS = {State.DISABLED: "D", State.AWAKE: "A", State.GRACE: "G", State.THROTTLED: "T", State.FROZEN: "F",
           State.WAKING: "W", State.TERMINATING: "X"}  # fmt: skip
EFFECTS = (Ask, Look, Moved, Refuse, type(OPEN))


def staged(stage: str) -> tuple[IdlePolicy, float]:
    book = Playbook(IdlePolicy(STAGED), ignoring=EFFECTS)
    now = 0.0
    for line in STAGES[stage][0]:
        at, call = line.split(maxsplit=1)
        now = float(at)
        book.at(now) >> eval(call, {name: getattr(on, name) for name in dir(IdlePolicy)} | globals())
    return book.run(), now


def spelled(policy: IdlePolicy, origin: State, effects: Effects) -> str:
    """The state it went to and the effects as letters; "." for nothing at all."""
    letters = ""
    for effect in effects:
        if isinstance(effect, Ask):
            letters += "atf"[effect.rung]
        elif isinstance(effect, Moved):
            assert (effect.origin, effect.to) == (origin, policy.state) and effect is effects[0]
        else:
            letters += "l" if isinstance(effect, Look) else "r" if isinstance(effect, Refuse) else "po"[effect is OPEN]
    announced = any(isinstance(effect, Moved) for effect in effects)
    silent = {origin, policy.state} <= {State.AWAKE, State.GRACE}
    assert announced == (policy.state is not origin and not silent)
    return LETTERS[policy.state] + letters if letters or policy.state is not origin else "."


def outcome(stage: str, event: str) -> str:
    policy, now = staged(stage)
    origin = policy.state
    _, gen, look, _ = STAGES[stage]
    call = EVENTS[event](gen, look)
    due = policy.next_deadline()
    now = due if event == "due" and due is not None else now + (1000.0 if event == "due" else 0.0)
    try:
        effects = getattr(policy, call.name)(now, *call.args)
    except AssertionError as refused:
        assert "without" in str(refused)
        return "!"
    return spelled(policy, origin, effects)


def grid() -> dict[tuple[str, str], str]:
    cells: dict[tuple[str, str], str] = {}
    for block in OUTCOMES.strip("\n").split("\n\n"):
        head, *rows = block.split("\n")
        events = head.split()
        for row in rows:
            stage, *found = row.rsplit(maxsplit=len(events))
            cells |= {(stage.strip(), event): cell for event, cell in zip(events, found, strict=True)}
    return cells


CELLS = grid()


def test_the_table_of_outcomes_is_complete() -> None:
    assert set(CELLS) == {(stage, event) for stage in STAGES for event in EVENTS}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_what_its_name_says(stage: str) -> None:
    policy, _ = staged(stage)
    _, generation, _, state = STAGES[stage]
    assert (policy.state, policy.generation) == (state, generation)
    assert policy.stuck == (stage in ("stuck", "term. stuck"))
    assert policy.settled == (stage not in ("throttling", "freezing", "retrying", "term. thawing")
                              and "waking" not in stage and "stuck" not in stage)  # fmt: skip


@pytest.mark.parametrize(("stage", "event"), CELLS, ids=lambda value: value.replace(" ", "-"))
def test_every_state_meets_every_event(stage: str, event: str) -> None:
    assert outcome(stage, event) == CELLS[stage, event]


def test_every_edge_of_the_table_is_walked_by_some_event() -> None:
    walked = set()
    for (stage, _event), cell in CELLS.items():
        to = next((state for state, letter in LETTERS.items() if cell[0] == letter), None)
        if to is not None and to is not STAGES[stage][3]:
            walked.add((STAGES[stage][3], to))
    assert walked == {(origin, to) for origin, tos in TRANSITIONS.items() for to in tos} - UNSTAGED


# Edges that need other settings than the staged ones; each has a test of its own below.
UNSTAGED = {
    (State.WAKING, State.DISABLED),  # test_disabling_while_asleep_thaws_first
    (State.GRACE, State.FROZEN),  # test_a_timer_that_fires_late_takes_the_deepest_rung_due
}


# === Timelines. ===


class Door:
    """The smallest door: fires each deadline on time, answers at once unless told otherwise, remembers all."""

    def __init__(self, **settings: object) -> None:
        self.policy = IdlePolicy(IdleSettings(**settings))  # type: ignore[arg-type]
        self.now = 0.0
        self.log: list[tuple[float, object]] = []
        self.answers = True  # the mechanism works and answers at once
        self.broken = ""  # the mechanism fails, with this detail
        self.unfreezable = ""  # it fails, but thaws
        self.obstacle: str | None = None  # what a look finds
        self.cpu = 0.0  # what the app burns

    def __getattr__(self, event: str) -> Callable[..., None]:
        return lambda *args: self.tell(event, *args)

    def tell(self, event: str, *args: object) -> None:
        effects = getattr(self.policy, event)(self.now, *args)
        self.log += [(self.now, effect) for effect in effects]
        for effect in effects:
            if isinstance(effect, Look):
                hot = effect.cpu_above is not None and self.cpu > effect.cpu_above
                self.tell("looked", effect.number, self.obstacle or ("cpu" if hot else None))
            elif isinstance(effect, Ask) and (self.broken or (effect.rung and self.unfreezable)):
                self.tell("failed", effect.generation, self.broken or self.unfreezable)
            elif isinstance(effect, Ask) and self.answers:
                self.tell("confirmed", effect.generation, effect.rung)

    def to(self, end: float) -> "Door":
        """Let time pass."""
        for _ in range(100_000):
            due = self.policy.next_deadline()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.tell("on_deadline")
        else:
            raise AssertionError(f"the timer does not come to rest: {self.policy!r}")
        self.now = end
        return self

    def request(self, at: float, lasting: float = 0.0) -> None:
        self.to(at).tell("arrived")
        self.to(at + lasting).tell("finished")

    def asks(self) -> list[float]:
        """When sleep was asked for."""
        return [at for at, effect in self.log if isinstance(effect, Ask) and effect.rung is not RUNNING]


def awake_door(**settings: object) -> Door:
    """Armed at 0, without hysteresis unless asked for."""
    door = Door(**{"min_uptime": 0.0, "min_running": 0.0, "min_between_freezes": 0.0} | settings)
    door.tell("ready")
    return door


@pytest.mark.fz("FZ-010", "FZ-011", "FZ-013")
def test_a_ready_pod_without_traffic_freezes_once_at_uptime_plus_grace() -> None:
    door = Door(min_uptime=10.0, freeze_after=2.0)
    door.to(5.0).tell("ready")
    door.to(3600.0)
    assert door.asks() == [17.0]
    assert door.policy.next_deadline() is None


@pytest.mark.fz("FZ-010", "D-03")
def test_an_app_that_was_never_ready_is_never_put_to_sleep() -> None:
    door = Door(min_uptime=0.0, freeze_after=0.0)
    door.request(1.0)
    assert door.to(3600.0).asks() == [] and door.policy.reason(3600.0) == "not ready yet"


@pytest.mark.fz("FZ-011")
def test_requests_during_the_minimum_uptime_do_not_lengthen_it() -> None:
    door = Door(min_uptime=10.0, freeze_after=2.0)
    door.tell("ready")
    door.request(3.0)
    assert door.to(60.0).asks() == [12.0]


@pytest.mark.fz("FZ-012")
@pytest.mark.parametrize("asleep", [True, False], ids=["asleep", "awake"])
def test_a_restarted_app_is_woken_and_arms_anew(asleep: bool) -> None:
    door = Door(min_uptime=10.0, freeze_after=2.0)
    door.tell("ready")
    door.to(20.0 if asleep else 11.0).tell("app_restarted")
    assert door.policy.is_open and door.policy.state is State.AWAKE
    before = len(door.asks())
    door.to(100.0).tell("ready")
    assert door.to(1000.0).asks()[before:] == [112.0]


def test_an_unready_app_stays_awake_without_serving_its_uptime_again() -> None:
    door = Door(min_uptime=10.0, freeze_after=2.0)
    door.tell("ready")
    door.to(20.0).tell("unready")
    assert door.policy.is_open
    door.to(100.0).tell("ready")
    assert door.to(1000.0).asks() == [12.0, 102.0]


@pytest.mark.fz("FZ-020", "L-05")
@pytest.mark.parametrize("grace", [0.0, 0.3, 2.0])
def test_the_grace_is_kept_to_the_millisecond(grace: float) -> None:
    policy = IdlePolicy(IdleSettings(min_uptime=0.0, freeze_after=grace))
    book = Playbook(policy)
    book.at(1.0) >> on.ready()
    book.at(5.0) >> on.arrived()
    book.at(6.0) >> on.finished()
    if grace:
        book.at(6.0 + grace - 0.001) >> on.on_deadline()
    book.at(6.0 + grace + 0.001) >> on.on_deadline() << Look(1, True, None)
    book.run()


@pytest.mark.fz("FZ-020")
def test_the_grace_counts_continuous_idleness() -> None:
    door = awake_door(freeze_after=2.0)
    for at in range(1, 100):
        door.request(float(at), lasting=0.1)
    assert door.asks() == []
    assert door.to(200.0).asks() == [101.1]


@pytest.mark.fz("FZ-020")
def test_the_deadline_is_where_next_deadline_says() -> None:
    door = awake_door(freeze_after=2.0)
    door.request(5.0, lasting=1.0)
    assert door.policy.state is State.GRACE and door.policy.next_deadline() == 8.0
    door.tell("arrived")
    assert door.policy.next_deadline() is None


@pytest.mark.fz("FZ-021", "FZ-029", "D-22")
def test_a_saturated_queue_never_sleeps() -> None:
    door = awake_door(freeze_after=0.0)
    for _ in range(100):
        door.tell("arrived")
    for second in range(99):
        door.to(float(second)).tell("finished")
    assert door.asks() == []
    assert door.policy.busy == 1 and door.policy.state is State.AWAKE


@pytest.mark.fz("FZ-021", "FZ-036")
def test_a_half_read_request_keeps_the_app_awake_and_hands_over_to_the_request() -> None:
    door = awake_door(freeze_after=0.5)
    door.to(0.1).tell("reading_began")
    door.to(100.0).tell("arrived")
    door.tell("reading_ended")
    door.to(200.0).tell("finished")
    assert door.to(300.0).asks() == [200.5]


@pytest.mark.fz("FZ-036")
def test_the_first_bytes_wake_the_app_before_the_request_is_read() -> None:
    door = awake_door()
    door.to(10.0)
    book = Playbook(door.policy)
    book.at(10.0) >> on.reading_began() << Moved(State.FROZEN, State.WAKING, "first bytes")
    book << Ask(RUNNING, 2, "first bytes")
    book.at(10.1) >> on.arrived()
    book.at(10.2) >> on.reading_ended()
    book.at(10.25) >> on.confirmed(2, RUNNING) << Moved(State.WAKING, State.AWAKE, "first bytes") << OPEN
    assert book.run().busy == 1


@pytest.mark.fz("FZ-023")
def test_after_a_thaw_the_app_runs_for_the_minimum_time() -> None:
    door = awake_door(freeze_after=0.0, min_running=0.25)
    door.request(10.0)
    assert door.to(60.0).asks() == [0.0, 10.25]


@pytest.mark.fz("FZ-023")
def test_bursts_do_not_freeze_more_often_than_allowed() -> None:
    door = awake_door(freeze_after=0.0, min_between_freezes=1.0, flap_limit=10_000)
    for tick in range(1, 1000):
        door.request(tick * 0.1)
    asks = door.asks()
    assert min(later - earlier for earlier, later in pairwise(asks)) >= 1.0
    assert len(asks) > 90


@pytest.mark.fz("FZ-024")
def test_flapping_doubles_the_grace_and_calm_gives_it_back() -> None:
    door = awake_door(freeze_after=0.5, flap_limit=20)
    for beat in range(1, 22):
        door.request(beat * 0.9)
    assert door.policy.grace == 1.0
    for beat in range(22, 62):  # the pod now outwaits this rhythm
        door.request(beat * 0.9)
    assert len(door.asks()) == 21
    door.request(200.0)
    assert door.policy.grace == 0.5


@pytest.mark.fz("FZ-024", "FZ-098")
def test_knocks_do_not_count_as_flapping() -> None:
    door = awake_door(freeze_after=0.5, flap_limit=1)
    for second in range(10, 50, 2):
        door.to(float(second)).tell("touched", "knock")
    assert door.policy.grace == 0.5


@pytest.mark.fz("FZ-025")
def test_the_adaptive_grace_follows_the_gaps() -> None:
    door = awake_door(freeze_after=2.0, adaptive=True, wait_weight=1000.0)
    for call in range(40):  # gaps of 10 s are not worth waiting for when a thaw is free
        door.request(1.0 + call * 10.0)
    assert door.policy.grace == 0.25


@pytest.mark.fz("FZ-027")
def test_cpu_use_delays_sleep_but_not_for_ever() -> None:
    door = awake_door(freeze_after=1.0, quiesce_cpu=0.05, quiesce_for=60.0, recheck_after=0.5)
    door.cpu = 0.5
    assert door.to(60.0).asks() == []
    assert "cpu" in door.policy.reason(60.0)
    assert door.to(100.0).asks() == [61.0]


@pytest.mark.fz("FZ-027")
def test_cpu_use_below_the_threshold_does_not_matter() -> None:
    door = awake_door(freeze_after=1.0, quiesce_cpu=0.05, look_first=False)
    door.cpu = 0.01
    assert door.to(10.0).asks() == [1.0]
    assert [effect for _, effect in door.log if isinstance(effect, Look)] == [Look(1, False, 0.05)]


@pytest.mark.fz("FZ-028")
def test_a_waiting_connection_delays_sleep_until_it_is_gone() -> None:
    door = awake_door(freeze_after=1.0, recheck_after=0.5)
    door.obstacle = "1 connection waits"
    assert door.to(100.2).asks() == [] and door.policy.reason(100.0) == "idle, but 1 connection waits"
    door.obstacle = None
    assert door.to(200.0).asks() == [100.5]


@pytest.mark.fz("FZ-028")
def test_a_look_from_before_a_request_does_not_count() -> None:
    policy = IdlePolicy(IdleSettings(min_uptime=0.0, freeze_after=1.0))
    book = Playbook(policy)
    book.at(0) >> on.ready()
    book.at(1) >> on.on_deadline() << Look(1, True, None)
    book.at(1.5) >> on.arrived() >> on.finished()
    book.at(2.5) >> on.on_deadline() << Look(2, True, None)
    book.at(2.6) >> on.looked(1, None)
    assert book.run().state is State.GRACE


@pytest.mark.fz("FZ-028")
def test_an_unanswered_look_keeps_the_app_awake() -> None:
    policy = IdlePolicy(IdleSettings(min_uptime=0.0, freeze_after=1.0, look_deadline=1.0, recheck_after=0.5))
    book = Playbook(policy)
    book.at(0) >> on.ready()
    book.at(1) >> on.on_deadline() << Look(1, True, None)
    book.at(2) >> on.on_deadline()
    book.at(2.2) >> on.looked(1, None)
    book.at(2.5) >> on.on_deadline() << Look(2, True, None)
    assert book.run().is_open


@pytest.mark.fz("FZ-028")
def test_without_looking_sleep_comes_straight_away() -> None:
    door = awake_door(freeze_after=1.0, look_first=False)
    assert door.to(10.0).asks() == [1.0]
    assert not [effect for _, effect in door.log if isinstance(effect, Look)]


@pytest.mark.fz("FZ-030")
def test_pooled_connections_are_dropped_before_sleep_is_asked_for() -> None:
    door = awake_door(throttle_after=1.0, freeze_after=2.0)
    door.to(10.0)
    said = [effect for _, effect in door.log if not isinstance(effect, Moved | Look)]
    assert said == [DROP_POOL, Ask(THROTTLED, 1, "idle for 1 s"), Ask(FROZEN, 2, "idle for 2 s")]


@pytest.mark.fz("FZ-031")
def test_a_hundred_requests_wake_the_app_once_and_are_released_together() -> None:
    door = awake_door()
    door.to(10.0)
    door.answers = False
    door.log.clear()
    for _ in range(100):
        door.tell("arrived")
    door.tell("confirmed", 2, RUNNING)
    said = [effect for _, effect in door.log if not isinstance(effect, Moved)]
    assert said == [Ask(RUNNING, 2, "request"), OPEN] and door.policy.busy == 100


@pytest.mark.fz("FZ-032", "FZ-033", "FZ-039", "D-21")
def test_an_arrival_supersedes_a_freeze_in_flight_and_the_late_answer_changes_nothing() -> None:
    book = Playbook(IdlePolicy(IdleSettings(min_uptime=0.0, look_first=False)), ignoring=(Moved,))
    book.at(0) >> on.ready()
    book.at(2) >> on.on_deadline() << DROP_POOL << Ask(FROZEN, 1, "idle for 2 s")
    book.at(2.01) >> on.arrived() << Ask(RUNNING, 2, "request")
    book.at(2.02) >> on.confirmed(1, FROZEN)
    book.at(2.03) >> on.failed(1, "too late")
    book.at(2.04) >> on.confirmed(1, RUNNING)
    policy = book.run()
    assert not policy.is_open and policy.state is State.WAKING
    book.at(2.05) >> on.confirmed(2, RUNNING) << OPEN
    book.at(2.06) >> on.confirmed(2, RUNNING)
    assert book.run().is_open


@pytest.mark.fz("FZ-033")
def test_a_slow_thaw_still_counts_after_it_was_asked_for_again() -> None:
    door = awake_door(thaw_deadline=0.3, thaw_retry_after=0.02)
    door.to(10.0)
    door.answers = False
    door.tell("arrived")
    door.to(10.31)
    assert not door.policy.is_open
    door.tell("confirmed", 2, RUNNING)
    assert door.policy.is_open and door.policy.generation == 2


@pytest.mark.fz("FZ-050")
@pytest.mark.parametrize("stage", STAGES)
def test_after_termination_nothing_leads_to_sleep(stage: str) -> None:
    policy, now = staged(stage)
    policy.terminated(now)
    _, generation, look, _ = STAGES[stage]
    for _ in range(3):
        for event, make in EVENTS.items():
            if event not in ("finished", "ended"):
                call = make(policy.generation, look)
                for effect in getattr(policy, call.name)(now, *call.args):
                    assert not isinstance(effect, Ask) or effect.rung is RUNNING
                now += 1000.0
    policy.confirmed(now, policy.generation, RUNNING)
    assert policy.state is State.TERMINATING and policy.is_open and policy.settled and generation <= policy.generation


@pytest.mark.fz("FZ-050")
def test_termination_thaws_a_sleeping_app_and_opens_only_when_confirmed() -> None:
    door = awake_door()
    door.to(10.0)
    book = Playbook(door.policy)
    book.at(10) >> on.terminated() << Moved(State.FROZEN, State.TERMINATING, "terminating")
    book << Ask(RUNNING, 2, "terminating")
    book.at(10) >> on.arrived()
    assert not book.run().is_open
    book.at(11) >> on.confirmed(2, RUNNING) << OPEN
    assert book.run().is_open


@pytest.mark.fz("FZ-065")
@pytest.mark.parametrize("late", [True, False], ids=["timed out", "refused"])
def test_a_failed_freeze_is_thawed_and_not_retried_before_the_next_idle_period(late: bool) -> None:
    door = awake_door(freeze_after=2.0, freeze_deadline=1.0)
    door.answers = False
    door.to(2.0)
    if not late:
        door.tell("failed", 1, "EBUSY")
    door.to(3.0)
    assert door.log[-1][1] == Ask(RUNNING, 2, f"freeze failed: {'no answer in 1 s' if late else 'EBUSY'}")
    assert not door.policy.is_open
    door.answers = True
    door.tell("confirmed", 2, RUNNING)
    assert door.policy.is_open and "freeze failed" in door.policy.reason(4.0)
    assert door.to(3600.0).asks() == [2.0]
    door.request(3600.0)
    assert door.to(7200.0).asks() == [2.0, 3602.0]


@pytest.mark.fz("FZ-065", "FZ-098")
def test_a_knock_does_not_start_a_new_idle_period() -> None:
    door = awake_door(freeze_after=2.0)
    door.broken = "EBUSY"
    door.to(2.0)
    door.broken = ""
    door.to(10.0).tell("touched", "knock")
    assert door.to(100.0).asks() == [2.0]


@pytest.mark.fz("FZ-066")
def test_freezing_is_suspended_after_failures_in_a_row_and_for_longer_each_time() -> None:
    door = awake_door(freeze_after=1.0, breaker_failures=3, breaker_backoff=30.0, breaker_cap=50.0)
    door.unfreezable = "EIO"
    for at in (0.0, 20.0, 30.0, 32.0):
        door.request(at)
    assert door.asks() == [1.0, 21.0, 31.0]
    door.to(40.0)
    assert door.policy.reason(40.0) == "3 freezes failed: suspended for 21 s"
    door.request(70.0)
    assert door.asks()[3:] == [61.0]  # 30 s after the third failure
    door.to(110.0)
    door.unfreezable = ""
    door.to(200.0)
    assert door.asks()[4:] == [111.0] and door.policy.state is State.FROZEN  # 50 s later: doubled, capped
    door.unfreezable = "EIO"
    for at in (300.0, 310.0, 320.0):
        door.request(at)
    assert door.asks()[5:] == [301.0, 311.0]  # a success forgave the past


@pytest.mark.fz("FZ-046", "FZ-067")
def test_a_failing_thaw_is_retried_fast_then_refused_then_retried_slowly() -> None:
    door = awake_door(thaw_retries=3, thaw_retry_after=0.02, thaw_backoff=0.5, thaw_backoff_cap=2.0)
    door.to(10.0)
    door.broken = "EIO"
    door.log.clear()
    door.tell("arrived")
    door.to(18.0)
    asked = [at for at, effect in door.log if isinstance(effect, Ask)]
    refused = [at for at, effect in door.log if isinstance(effect, Refuse)]
    assert asked == pytest.approx([10.0, 10.02, 10.06, 10.14, 10.64, 11.64, 13.64, 15.64, 17.64])
    assert refused == pytest.approx(asked[3:])
    assert door.policy.stuck and "cannot thaw after 9 attempts" in door.policy.reason(18.0)
    assert {effect.generation for _, effect in door.log if isinstance(effect, Ask)} == {2}
    door.broken = ""
    door.to(20.0)
    assert not door.policy.stuck and door.policy.is_open and door.log[-1][1] is OPEN


@pytest.mark.fz("FZ-046")
def test_a_mechanism_that_hangs_makes_the_pod_unready_within_two_seconds() -> None:
    door = awake_door()
    door.to(10.0)
    door.answers = False
    door.tell("arrived")
    door.to(12.0)
    assert door.policy.stuck


@pytest.mark.fz("FZ-067")
def test_a_stuck_pod_recovers_although_nobody_waits() -> None:
    door = awake_door()
    door.to(10.0)
    door.broken = "EIO"
    door.request(11.0)
    door.to(60.0)
    door.broken = ""
    door.to(66.0)
    assert OPEN in [effect for at, effect in door.log if at > 60.0] and not door.policy.stuck


@pytest.mark.fz("FZ-067")
def test_a_thaw_can_fail_for_a_day() -> None:
    door = awake_door(thaw_backoff_cap=5.0)
    door.to(10.0)
    door.broken = "EIO"
    door.tell("arrived")
    door.to(86_400.0)
    assert door.policy.next_deadline() is not None and door.policy.next_deadline() <= 86_405.0


@pytest.mark.fz("FZ-068")
def test_a_frozen_app_found_after_our_restart_is_woken_under_a_newer_generation() -> None:
    book = Playbook(IdlePolicy(IdleSettings()))
    book.at(0) >> on.adopted(41, FROZEN) << Moved(State.AWAKE, State.WAKING, "found frozen")
    book << Ask(RUNNING, 42, "found frozen")
    book.at(0) >> on.arrived()
    book.at(0.1) >> on.confirmed(42, RUNNING) << Moved(State.WAKING, State.AWAKE, "found frozen") << OPEN
    book.run()


@pytest.mark.fz("FZ-068")
def test_a_running_app_found_after_our_restart_only_lends_its_generation() -> None:
    policy = IdlePolicy(IdleSettings())
    assert policy.adopted(0.0, 41, RUNNING) == NOTHING
    assert policy.generation == 41 and policy.is_open


@pytest.mark.fz("FZ-080")
@pytest.mark.parametrize(
    ("settings", "asks"),
    [
        ({"throttle_after": 1.0, "freeze_after": 3.0}, [(1.0, THROTTLED), (3.0, FROZEN)]),
        ({"throttle_after": 1.0, "freeze_after": None}, [(1.0, THROTTLED)]),
        ({"throttle_after": None, "freeze_after": 3.0}, [(3.0, FROZEN)]),
        ({"throttle_after": 3.0, "freeze_after": 3.0}, [(3.0, FROZEN)]),
        ({"throttle_after": 9.0, "freeze_after": 3.0}, [(3.0, FROZEN)]),
        ({"throttle_after": 0.0, "freeze_after": 0.0}, [(0.0, FROZEN)]),
        ({"throttle_after": None, "freeze_after": None}, []),
    ],
    ids=["both", "throttle only", "freeze only", "same delay", "throttle later", "both at once", "none"],
)
def test_each_rung_comes_after_its_own_delay_and_goes_back_in_one_step(
    settings: dict[str, float | None], asks: list[tuple[float, Rung]]
) -> None:
    door = awake_door(**settings)
    door.to(100.0)
    assert [(at, effect.rung) for at, effect in door.log if isinstance(effect, Ask)] == asks
    door.log.clear()
    door.tell("arrived")
    assert [effect.rung for _, effect in door.log if isinstance(effect, Ask)] == [RUNNING] * bool(asks)
    assert door.policy.is_open


@pytest.mark.fz("FZ-080")
def test_a_timer_that_fires_late_takes_the_deepest_rung_due() -> None:
    door = awake_door(throttle_after=1.0, freeze_after=3.0)
    door.now = 60.0
    door.tell("on_deadline")
    assert [effect.rung for _, effect in door.log if isinstance(effect, Ask)] == [FROZEN]


@pytest.mark.fz("FZ-080")
def test_a_mechanism_that_only_throttles_is_not_asked_to_freeze_again() -> None:
    policy = IdlePolicy(IdleSettings(min_uptime=0.0, look_first=False))
    book = Playbook(policy, ignoring=(Ask, type(DROP_POOL)))
    book.at(0) >> on.ready()
    book.at(2) >> on.on_deadline() << Moved(State.GRACE, State.FROZEN, "idle for 2 s")
    book.at(2) >> on.confirmed(1, THROTTLED) << Moved(State.FROZEN, State.THROTTLED, "throttled instead")
    book.at(3600) >> on.on_deadline()
    assert book.run().next_deadline() is None and policy.asleep


@pytest.mark.fz("FZ-098")
def test_a_knock_is_a_short_wake_not_a_new_grace() -> None:
    door = awake_door(freeze_after=30.0, min_running=0.25)
    for second in range(100, 140, 2):
        door.to(float(second)).tell("touched", "knock")
    assert door.to(200.0).asks() == [30.0] + [second + 0.25 for second in range(100, 140, 2)]


@pytest.mark.fz("FZ-098")
def test_a_touch_may_ask_for_its_own_time_counted_from_the_confirmed_thaw() -> None:
    door = awake_door(freeze_after=1.0)
    door.to(10.0)
    door.answers = False
    door.tell("touched", "heartbeat", 5.0)
    door.to(10.2).tell("confirmed", 2, RUNNING)
    assert door.to(60.0).asks() == [1.0, 15.2]


def test_a_touch_while_running_holds_the_app_awake() -> None:
    door = awake_door(freeze_after=1.0)
    door.to(0.9).tell("touched", "accept", 3.0)
    assert door.policy.reason(1.0) == "held: 2.9 s to go"
    assert door.to(60.0).asks() == [3.9]


@pytest.mark.fz("FZ-014")
def test_disabling_while_asleep_thaws_first() -> None:
    door = awake_door()
    door.to(10.0)
    door.answers = False
    door.tell("disabled", "freezer unreachable")
    assert door.policy.state is State.WAKING and not door.policy.is_open
    door.tell("confirmed", 2, RUNNING)
    assert door.policy.state is State.DISABLED and door.policy.is_open
    assert door.policy.reason(10.0) == "freezer unreachable"


@pytest.mark.fz("FZ-014")
def test_while_disabled_nothing_is_asked_and_enabling_starts_a_new_idle_period() -> None:
    door = awake_door(freeze_after=2.0)
    door.tell("disabled", "freezer unreachable")
    door.request(5.0)
    door.to(100.0).tell("enabled")
    assert door.to(200.0).asks() == [102.0]


@pytest.mark.fz("FZ-002")
def test_without_rungs_the_policy_is_disabled_for_good() -> None:
    door = awake_door(freeze_after=None)
    door.tell("enabled")
    door.request(1.0)
    door.tell("disabled", "no freezer")
    assert door.policy.state is State.DISABLED and door.log == [] and door.policy.next_deadline() is None
    assert door.policy.reason(2.0) == "freezing is off" and door.policy.grace is None


@pytest.mark.fz("FZ-110")
def test_terms_that_arrive_later_hold_from_a_new_idle_period() -> None:
    door = awake_door(freeze_after=None)
    assert door.policy.state is State.DISABLED
    door.to(10.0).tell("configured", IdleSettings(freeze_after=3.0, min_uptime=0.0))
    assert door.to(60.0).asks() == [13.0]


@pytest.mark.fz("FZ-110")
@pytest.mark.parametrize("order", [("configured", "enabled"), ("enabled", "configured")])
def test_a_freezer_that_comes_late_brings_its_terms(order: tuple[str, str]) -> None:
    door = awake_door(freeze_after=1.0)
    door.tell("disabled", "no freezer yet")
    door.to(10.0)
    arguments = {"configured": [IdleSettings(freeze_after=3.0, min_uptime=0.0)], "enabled": []}
    for event in order:
        door.tell(event, *arguments[event])
    assert door.to(60.0).asks() == [13.0]


@pytest.mark.fz("FZ-110")
def test_terms_that_forbid_sleep_wake_the_app_first() -> None:
    door = awake_door()
    door.to(10.0)
    door.answers = False
    door.tell("configured", IdleSettings(freeze_after=None))
    assert door.policy.state is State.WAKING and not door.policy.is_open
    door.tell("confirmed", 2, RUNNING)
    assert door.policy.state is State.DISABLED and door.policy.reason(10.0) == "freezing is off"


@pytest.mark.fz("FZ-110", "FZ-113")
def test_shadow_mode_begins_and_ends_only_while_running_is_certain() -> None:
    door = awake_door(freeze_after=1.0)
    door.to(10.0)
    door.answers = False
    door.tell("configured", IdleSettings(freeze_after=1.0, min_uptime=0.0, shadow=True))
    assert not door.policy.shadow and not door.policy.is_open, "the app sleeps in earnest"
    door.tell("confirmed", 2, RUNNING)
    assert door.policy.shadow
    door.answers = True
    door.to(20.0)
    assert door.policy.state is State.FROZEN and door.policy.is_open
    door.tell("configured", IdleSettings(freeze_after=1.0, min_uptime=0.0))
    assert not door.policy.shadow and door.policy.state is State.AWAKE and door.policy.is_open


@pytest.mark.fz("FZ-068", "FZ-090")
def test_a_thaw_from_outside_is_confirmed_and_a_whole_grace_passes_before_the_next_sleep() -> None:
    door = awake_door(freeze_after=2.0)
    door.to(10.0).tell("woken", "operator")
    assert door.policy.is_open and door.policy.generation == 2
    assert door.to(60.0).asks() == [2.0, 12.0]
    door.request(70.0)
    door.tell("woken", "operator")
    assert door.policy.generation == 4, "news to nobody"


@pytest.mark.fz("FZ-023", "FZ-098")
def test_a_knock_may_be_shorter_than_the_minimum_but_not_for_a_request() -> None:
    door = awake_door(freeze_after=0.0, min_running=0.25)
    door.to(10.0).tell("touched", "knock", 0.1)
    door.to(20.0)
    door.answers = False
    door.tell("touched", "knock", 0.1)
    door.tell("arrived")
    door.tell("confirmed", door.policy.generation, RUNNING)
    door.tell("finished")
    door.answers = True
    assert door.to(30.0).asks() == [0.0, 10.1, 20.25]


@pytest.mark.fz("FZ-113")
def test_shadow_mode_decides_and_asks_but_the_gate_never_closes() -> None:
    door, real = awake_door(shadow=True), awake_door(shadow=False)
    for each in (door, real):
        each.answers = False
        each.to(2.0)
        assert each.policy.state is State.FROZEN
        each.tell("arrived")
    assert door.policy.is_open and not door.policy.asleep and door.policy.shadow
    assert not real.policy.is_open and real.policy.asleep
    assert [effect for effect in real.log if effect[1] is not DROP_POOL] == door.log
    assert door.policy.reason(2.0) == "shadow: request"


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("disabled", "no freezer"),
        ("unready", "not ready yet"),
        ("held", "min uptime: 8 s to go"),
        ("busy", "busy: 1 request"),
        ("half-read", "busy: 1 half-read request"),
        ("spent", "freeze failed: io; not again before the next request"),
        ("grace", "idle for 0.5 of 1 s"),
        ("obstructed", "idle, but backlog"),
        ("throttled", "idle for 1 s"),
        ("frozen", "idle for 2 s"),
        ("waking", "knock"),
        ("stuck", "knock, cannot thaw after 2 attempts"),
        ("terminating", "terminating"),
        ("term. stuck", "terminating, cannot thaw after 3 attempts"),
    ],
)
def test_the_reason_is_in_human_words(stage: str, words: str) -> None:
    policy, now = staged(stage)
    assert policy.reason({"held": 2.0, "grace": 10.5}.get(stage, now)) == words


def test_the_repr_shows_where_it_stands() -> None:
    assert repr(staged("stuck")[0]) == "<IdlePolicy WAKING wish=RUNNING gen=3 unsettled stuck busy=0 half_read=0>"
    assert repr(staged("busy")[0]) == "<IdlePolicy AWAKE wish=RUNNING gen=0 busy=1 half_read=0>"


def test_the_request_path_returns_the_one_empty_tuple() -> None:
    policy, now = staged("grace")
    for event in ("arrived", "arrived", "finished", "reading_began", "reading_ended", "finished"):
        assert getattr(policy, event)(now) is NOTHING

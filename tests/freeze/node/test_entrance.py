"""Who is let in at the sidecars' port: verdicts, what the node knows, the journal's word, limits. The API server itself
is asked in `test_review.py` and, with everything real, in `tests/hostile/test_freezer_threats.py`."""

import json
import os
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from queueproxy.freeze.annotations import DEFAULTS
from queueproxy.freeze.node.claims import Claims, Refused, Standing, Verdict, decode_claims
from queueproxy.freeze.node.entrance import Entrance, facts_of
from queueproxy.freeze.node.inventory import PodFacts
from queueproxy.freeze.node.limits import Limits, Rate, Rates
from queueproxy.freeze.node.port import Admission
from queueproxy.freeze.node.record import Record
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import Problem
from queueproxy.log import LineWriter, Log
from tests.support.knative_pod import knative_pod
from tests.support.tokens import AUDIENCE, claims_of, token

POD = knative_pod()
UID, NAME, IP = POD["metadata"]["uid"], POD["metadata"]["name"], "10.244.0.39"
TOKEN = token(claims_of(POD, wall=time.time()))
CLAIMS: Claims = decode_claims(TOKEN, AUDIENCE, "node1", time.time())
FACTS = PodFacts(UID, "default", NAME, "node1", (IP,), "hello-00001", "burstable", DEFAULTS, (), "b" * 64, False, "")
SECRET = "s3cret"
RECORD = Record(
    UID, "default", NAME, "hello-00001", "burstable", (IP,), "b" * 64, (), 7, Rung.FROZEN, 20.0,
    proof=sha256(SECRET.encode()).hexdigest(),
)  # fmt: skip
GOOD, STALE = Verdict(Standing.GOOD, CLAIMS), Verdict(Standing.STALE, CLAIMS)
REFUSED, UNKNOWN = Verdict(Standing.REFUSED, None, "not authenticated"), Verdict(Standing.UNKNOWN, None, "no answer")


class Reviewed:
    """A reviewer that has made up its mind; with `later`, only when asked."""

    def __init__(self, verdict: Verdict, *, later: bool) -> None:
        self.verdict = verdict
        self.later = later
        self.asked = 0

    def known(self, token: str) -> Verdict | None:
        return None if self.later else self.verdict

    def ask(self, token: str, answered: Callable[[Verdict], None]) -> None:
        self.asked += 1
        answered(self.verdict)


class House:
    """An entrance and what is behind it."""

    def __init__(self, log: Log) -> None:
        self.pods: dict[str, PodFacts] = {UID: FACTS}
        self.adopted: dict[str, Record] = {}
        self.limits = Limits()
        self.log = log

    def entrance(self, reviewer: Reviewed, **options: bool) -> Entrance:
        return Entrance(
            reviewer, self.pods, self.adopted, self.limits, self.log,  # type: ignore[arg-type]
            audience=AUDIENCE, node="node1", **options,
        )  # fmt: skip

    def admit(
        self, verdict: Verdict, *, later: bool = False, secret: str | None = None, peer: str = IP, **options: bool
    ) -> Admission:
        found: list[Admission] = []
        self.entrance(Reviewed(verdict, later=later), **options).admit(TOKEN, secret, peer, found.append)
        assert len(found) == 1
        return found[0]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    yield House(Log(LineWriter(fd)))
    os.close(fd)


@pytest.mark.parametrize("later", [False, True])
def test_a_good_token_from_its_pods_address_is_let_in(house: House, later: bool) -> None:
    assert house.admit(GOOD, later=later) == Admission(UID)


@pytest.mark.fz("FZ-102", "FZ-127", "FZ-128")
@pytest.mark.parametrize(
    ("verdict", "changes", "peer"),
    [
        pytest.param(REFUSED, {}, IP, id="a token the API server refuses"),
        pytest.param(GOOD, {}, "10.244.0.40", id="another address"),
        pytest.param(GOOD, {"name": "other"}, IP, id="another pod under that uid"),
        pytest.param(GOOD, {"namespace": "other"}, IP, id="another namespace"),
    ],
)
def test_every_refusal_is_the_same_outside_and_has_its_reason_in_the_log(
    house: House, tmp_path: Path, verdict: Verdict, changes: dict[str, str], peer: str
) -> None:
    house.pods[UID] = FACTS._replace(**changes)  # type: ignore[arg-type]
    assert house.admit(verdict, peer=peer) == Admission("", Problem.FORBIDDEN)
    said = (tmp_path / "log").read_text()
    line = json.loads(said)
    assert line["message"] == "caller refused" and line["reason"] and line["peer"] == peer and len(line["token"]) == 12
    assert TOKEN not in said and TOKEN.split(".")[1] not in said


@pytest.mark.fz("FZ-128")
def test_the_address_need_not_fit_where_it_is_not_checked(house: House) -> None:
    assert house.admit(GOOD, peer="192.0.2.1", check_peer=False) == Admission(UID)


def test_a_pod_that_is_not_known_here_is_told_to_come_again(house: House) -> None:
    house.pods.clear()
    assert house.admit(GOOD).problem is Problem.NOT_READY


@pytest.mark.fz("FZ-064")
def test_an_older_yes_lets_in_but_not_to_fall_asleep(house: House) -> None:
    assert house.admit(STALE, later=True) == Admission(UID, fresh=False)


@pytest.mark.fz("FZ-064", "FZ-092")
def test_the_journal_vouches_for_a_sidecar_that_knows_its_secret(house: House) -> None:
    house.pods.clear()
    house.adopted[UID] = RECORD
    assert house.admit(UNKNOWN, later=True, secret=SECRET) == Admission(UID, fresh=False)


@pytest.mark.parametrize(
    ("secret", "record", "peer", "problem"),
    [
        pytest.param("guess", RECORD, IP, Problem.NOT_READY, id="a wrong secret"),
        pytest.param(None, RECORD, IP, Problem.NOT_READY, id="no secret"),
        pytest.param(SECRET, RECORD._replace(proof=""), IP, Problem.NOT_READY, id="a record without one"),
        pytest.param("", RECORD._replace(proof=""), IP, Problem.NOT_READY, id="nothing against nothing"),
        pytest.param(SECRET, None, IP, Problem.NOT_READY, id="no record"),
        pytest.param(SECRET, RECORD, "10.244.0.40", Problem.FORBIDDEN, id="another address"),
        pytest.param(SECRET, RECORD._replace(name="other"), IP, Problem.FORBIDDEN, id="another pod"),
    ],
)
def test_the_journal_vouches_for_nobody_else(
    house: House, secret: str | None, record: Record | None, peer: str, problem: Problem
) -> None:
    house.pods.clear()
    if record is not None:
        house.adopted[UID] = record
    assert house.admit(UNKNOWN, later=True, secret=secret, peer=peer).problem is problem


def test_a_token_of_nonsense_is_not_vouched_for(house: House) -> None:
    house.adopted[UID] = RECORD
    found: list[Admission] = []
    house.entrance(Reviewed(UNKNOWN, later=True)).admit("nonsense", SECRET, IP, found.append)
    assert found[0].problem is Problem.NOT_READY


@pytest.mark.fz("FZ-130")
def test_strangers_pay_by_the_call_and_a_known_sidecar_does_not(house: House) -> None:
    house.limits = Limits(Rates(source=Rate(0.001, 2), unproven=Rate(0.001, 1)))
    reviewer = Reviewed(REFUSED, later=True)
    entrance, found = house.entrance(reviewer), list[Admission]()
    for _ in range(5):
        entrance.admit(TOKEN, None, IP, found.append)
    assert [admission.problem for admission in found] == [Problem.FORBIDDEN] + 4 * [Problem.RATE_LIMITED]
    assert reviewer.asked == 1 and (found[-1].retry_after_s or 0) > 0
    assert house.admit(GOOD) == Admission(UID), "the noise of others does not keep it out"
    assert house.admit(REFUSED).problem is Problem.RATE_LIMITED


@pytest.mark.fz("FZ-064", "FZ-130")
def test_where_all_share_one_address_one_flood_does_not_keep_the_others_out(house: House) -> None:
    """In an outage every token has to be asked about, and behind a masquerading host port all come from one place."""
    house.limits = Limits(Rates(source=Rate(0.001, 2), unproven=Rate(0.001, 1)))
    entrance, found = house.entrance(Reviewed(STALE, later=True), check_peer=False), list[Admission]()
    for _ in range(3):
        entrance.admit("noise", None, IP, found.append)
    entrance.admit(TOKEN, None, IP, found.append)
    assert [admission.problem for admission in found[1:]] == [Problem.RATE_LIMITED, Problem.RATE_LIMITED, None]


@pytest.mark.fz("FZ-130")
def test_a_pods_calls_have_a_pace_and_locked_out_ones_a_limit(house: House) -> None:
    house.limits = Limits(Rates(pod=Rate(10, 1), source=Rate(0.001, 1)))
    entrance = house.entrance(Reviewed(GOOD, later=False))
    assert entrance.pace(UID) == 0.0 and 0 < entrance.pace(UID) <= 0.1
    assert not entrance.locked_out(IP) and entrance.locked_out(IP)


def test_claims_are_screened_by_what_the_node_knows(house: House) -> None:
    entrance = house.entrance(Reviewed(GOOD, later=False))
    assert entrance.screen(CLAIMS) == "" and entrance.screen(CLAIMS._replace(pod="other")) != ""
    with pytest.raises(Refused):
        decode_claims(TOKEN, AUDIENCE, "elsewhere", time.time())


def test_what_only_the_journal_knows_may_not_be_frozen() -> None:
    facts = facts_of(RECORD, "node1")
    assert facts.refusal and facts.containers == () and facts.ips == (IP,)


class Slow(Reviewed):
    """A reviewer that has been asked and says nothing yet."""

    def ask(self, token: str, answered: Callable[[Verdict], None]) -> None:
        self.asked += 1


@pytest.mark.fz("FZ-064", "FZ-092", "FZ-129")
@pytest.mark.parametrize("secret", [SECRET, "another", None], ids=["its secret", "another secret", "no secret"])
def test_after_a_restart_a_sleepers_sidecar_need_not_wait_for_the_api_server(house: House, secret: str | None) -> None:
    """Loading the API client alone takes a second, and somebody waits for the thaw. Its token is reviewed all the same,
    and until then it may only thaw and renew."""
    house.pods.clear()
    house.adopted[UID] = RECORD
    reviewer, found = Slow(GOOD, later=True), list[Admission]()
    house.entrance(reviewer).admit(TOKEN, secret, IP, found.append)
    assert found == ([Admission(UID, fresh=False)] if secret == SECRET else [])
    assert reviewer.asked == 1

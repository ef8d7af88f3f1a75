"""What operators see of a pod."""

import json

from queueproxy.freeze.annotations import DEFAULTS
from queueproxy.freeze.node.book import Page
from queueproxy.freeze.node.inventory import ContainerFacts, PodFacts
from queueproxy.freeze.node.ledger import Ledger
from queueproxy.freeze.node.moved import Moved
from queueproxy.freeze.node.overview import pod_record, pod_records
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import StateRequest, Wanted

UID = "11111111-1111-1111-1111-111111111111"
FACTS = PodFacts(
    UID, "shop", "cart-1", "n1", ("10.0.0.1",), "cart", "burstable", DEFAULTS,
    (ContainerFacts("app", "a" * 64, "containerd"),), "b" * 64, False, "",
)  # fmt: skip


def test_a_pod_goes_through_its_states() -> None:
    ledger = Ledger()
    ledger.known(0.0, FACTS)
    entry, page = ledger.pods[UID], Page(0.0, "shop", "cart-1", "cart")
    states = [pod_record(1.0, entry, page, True)["state"]]
    ledger.asked(1.0, UID, StateRequest(Wanted.IDLE, 1, 30.0, "quiet"))
    states.append(pod_record(1.0, entry, page, True)["state"])
    ledger.reached(1.5, UID, entry.move, Moved(Rung.FROZEN, "cgroup2", 0.001, "", False))
    asleep = pod_record(4.0, entry, page, True)
    states.append(asleep["state"])
    assert (asleep["since_s"], asleep["lease_s"], asleep["why"], asleep["mechanism"]) == (2.5, 27.0, "quiet", "cgroup2")
    ledger.asked(5.0, UID, StateRequest(Wanted.ACTIVE, 2))
    states.append(pod_record(5.0, entry, page, True)["state"])
    ledger.reached(5.1, UID, entry.move, Moved(None, "cgroup2", 2.0, "timed out", False))
    stuck = pod_record(5.1, entry, page, True)
    states.append(stuck["state"])
    assert states == ["running", "falling asleep", "frozen", "waking", "stuck"]
    assert "cannot thaw" in str(stuck["why"]) and json.dumps(stuck)


def test_pods_come_in_order_and_one_nobody_knows_has_only_its_uid() -> None:
    ledger = Ledger()
    other = "00000000-1111-1111-1111-111111111111"
    ledger.known(0.0, FACTS)
    ledger.known(0.0, FACTS._replace(uid=other))
    first, second = pod_records(1.0, ledger.pods, {UID: Page(0.0, "shop", "cart-1", "cart")}, {UID})
    assert (first["uid"], first["name"], first["connected"], first["mode"]) == (other, "", False, "freeze")
    assert (second["uid"], second["name"], second["connected"], second["changes"]) == (UID, "cart-1", True, [])

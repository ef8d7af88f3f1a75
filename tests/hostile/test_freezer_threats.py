"""One test per threat of the freezer's threat model (freezer-lineage 6.3) that it claims to stop: the real process.

Two pods live on the node: the victim, which sleeps and wakes at its own sidecar's wish, and the thief's, whose code
holds whatever the test gives it. After each attack the victim is where its sidecar left it.
"""

import json
import os
import random
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.apiserver import API_AUDIENCE, ApiServer
from tests.support.cgroupfs import real_cgroups
from tests.support.freezer_calls import Reply, get, old, put
from tests.support.freezer_process import NODE, FreezerProcess, Resident, Sidecar, active, freeze, idle, thaw
from tests.support.kubepods import Node

pytest_plugins = ["tests.support.freezer_fixtures"]  # api, node, freezer: one each for the whole module
pytestmark = [*real_cgroups(""), pytest.mark.xdist_group("freezer")]


class Victim:
    """A pod with its sidecar; `is_untouched` compares with what the sidecar last wished."""

    def __init__(self, freezer: FreezerProcess) -> None:
        self.freezer = freezer
        self.app = freezer.add_pod()
        self.sidecar, self.secret = freezer.sidecar(self.app)
        self.generation = 0

    def sleep(self) -> None:
        self.generation += 1
        assert freeze(self.sidecar, self.app, self.secret, self.generation).json["state"] == "frozen"

    def wake(self) -> None:
        self.generation += 1
        assert thaw(self.sidecar, self.app, self.secret, self.generation).json["state"] == "running"

    def is_untouched(self, *, asleep: bool) -> bool:
        view = self.sidecar.call(get(self.app.token, secret=self.secret)).json
        return view["generation"] == self.generation and self.freezer.frozen(self.app) is asleep


@pytest.fixture
def victim(freezer: FreezerProcess) -> Victim:
    return Victim(freezer)


@pytest.fixture
def thief(freezer: FreezerProcess) -> Resident:
    pod = freezer.add_pod()
    sidecar, _ = freezer.sidecar(pod)
    sidecar.close()
    return pod


def attempt(freezer: FreezerProcess, data: bytes, source: str) -> Reply | None:
    """One call from an address; None when the connection was just cut."""
    with Sidecar(freezer.port, source) as stranger:
        try:
            return stranger.call(data)
        except OSError:
            return None


def everything(token: str, secret: str | None = None) -> list[bytes]:
    """Each way to move a pod with a token."""
    wishes: list[dict[str, Any]] = [idle(9), active(10), active(11) | {"state": "terminating"}]
    return [put(token, wish, secret=secret) for wish in wishes] + [old(token, "pause"), old(token, "resume")]


# -- T-01, T-05, T-06: somebody else's pod


@pytest.mark.fz("FZ-127", "FZ-128", "FZ-129")
@pytest.mark.parametrize("asleep", [False, True])
def test_t01_a_stolen_token_of_pod_a_never_moves_pod_a_from_pod_b(
    freezer: FreezerProcess, victim: Victim, thief: Resident, asleep: bool
) -> None:
    if asleep:
        victim.sleep()
    for data in everything(victim.app.token) + everything(victim.app.token, victim.secret):
        reply = attempt(freezer, data, thief.address)
        assert reply is not None and reply.status == 403
    assert victim.is_untouched(asleep=asleep)


@pytest.mark.parametrize("asleep", [False, True])
def test_t01_a_token_of_pod_b_never_moves_pod_a_whatever_the_request_says(
    freezer: FreezerProcess, victim: Victim, thief: Resident, asleep: bool
) -> None:
    if asleep:
        victim.sleep()
    pod = {"pod": victim.app.uid, "uid": victim.app.uid, "container": victim.app.pod.containers[0].id}
    sidecar, secret = freezer.sidecar(thief)
    for number, wish in enumerate((idle(1) | pod, active(2) | pod), 1):
        assert sidecar.call(put(thief.token, wish, secret=secret)).json["generation"] == number
    for path in (f"/v1/pods/{victim.app.uid}/state", f"/v1/pods/self/state?uid={victim.app.uid}"):
        reply = attempt(freezer, put(thief.token, idle(3), secret=secret, path=path), thief.address)
        assert reply is not None and reply.status == 404
    named = b"Host: node\r\nX-Pod-Uid: " + victim.app.uid.encode()
    head = put(thief.token, active(5), secret=secret).replace(b"Host: node", named)
    assert sidecar.call(head).status == 200
    assert victim.is_untouched(asleep=asleep)


@pytest.mark.fz("FZ-129")
def test_t05_the_apps_own_token_does_nothing_while_its_sidecar_is_connected(
    freezer: FreezerProcess, victim: Victim
) -> None:
    """The app's container shares the address and may have a token of the same audience mounted."""
    apps_token = freezer.api.mint_token(victim.app.spec, container="user-container")
    for data in [*everything(apps_token), *everything(apps_token, "guess")]:
        reply = attempt(freezer, data, victim.app.address)
        assert reply is not None and reply.status == 403
    assert victim.is_untouched(asleep=False)


def test_t06_an_accomplice_cannot_keep_a_pod_awake(freezer: FreezerProcess, victim: Victim, thief: Resident) -> None:
    victim.sleep()
    for source in (thief.address, victim.app.address):
        reply = attempt(freezer, put(victim.app.token, active(99)), source)
        assert reply is not None and reply.status == 403
    assert victim.is_untouched(asleep=True)


# -- T-02, T-03, T-04: tokens that are not what they should be


@pytest.mark.fz("FZ-125", "FZ-126", "FZ-127", "D-07")
@pytest.mark.parametrize(
    "mint",
    [
        pytest.param(lambda api, pod: api.mint_token(pod, API_AUDIENCE), id="T-02 the API server's"),
        pytest.param(lambda api, pod: api.mint_token(pod, "another"), id="T-02 another audience"),
        pytest.param(lambda api, pod: api.token, id="T-03 not bound to a pod"),
        pytest.param(lambda api, pod: api.mint_token(pod, valid_for=-60), id="expired"),
        pytest.param(lambda api, pod: api.mint_token(pod)[:-8] + "AAAAAAAA", id="a forged signature"),
        pytest.param(lambda api, pod: "x.y.z", id="no token at all"),
        pytest.param(lambda api, pod: "a" * 3000, id="a long one"),
    ],
)
def test_t02_t03_a_token_that_is_not_this_pods_is_refused_with_the_same_words(
    freezer: FreezerProcess, victim: Victim, mint: Any
) -> None:
    bodies = set()
    for data in everything(mint(freezer.api, victim.app.spec)):
        reply = attempt(freezer, data, victim.app.address)
        assert reply is not None and reply.status in (403, 429)
        if reply.status == 403 and reply.body:
            bodies.add(reply.body)
    assert len(bodies) <= 1 and victim.is_untouched(asleep=False)


def test_t03_a_review_that_names_nobody_is_a_refusal_and_no_panic(freezer: FreezerProcess) -> None:
    """The daemon of old indexed an empty list and died."""
    app = freezer.add_pod()
    freezer.until(lambda: app.uid in freezer.pods(), "the watch shows it")

    def tamper(review: dict[str, Any]) -> dict[str, Any]:
        review["status"]["user"]["extra"] = {"authentication.kubernetes.io/pod-uid": []}
        return review

    freezer.api.tamper = tamper
    try:
        reply = attempt(freezer, get(app.token), app.address)
    finally:
        freezer.api.tamper = lambda review: review
    assert reply is not None and reply.status == 403 and freezer.ask("/healthz")[0] == 200


@pytest.mark.fz("FZ-127")
def test_t04_a_token_from_another_node_is_refused(freezer: FreezerProcess, victim: Victim) -> None:
    elsewhere = freezer.add_pod(overrides={"spec": {"nodeName": "elsewhere"}})
    assert elsewhere.spec["spec"]["nodeName"] != NODE
    for data in everything(elsewhere.token):
        reply = attempt(freezer, data, elsewhere.address)
        assert reply is not None and reply.status == 403
    assert elsewhere.uid not in freezer.pods() and not freezer.frozen(elsewhere)


# -- T-07, T-08: replay and reordering


@pytest.mark.fz("FZ-061")
def test_t07_a_captured_request_is_worth_nothing_once_its_pod_has_moved_on(
    freezer: FreezerProcess, victim: Victim, thief: Resident
) -> None:
    victim.sleep()
    captured = put(victim.app.token, idle(victim.generation), secret=victim.secret)
    victim.wake()
    for source in (thief.address, victim.app.address):  # the second: even from the pod itself, with the secret
        reply = attempt(freezer, captured, source)
        assert reply is not None and reply.status in (403, 409)
    assert not freezer.frozen(victim.app)


@pytest.mark.fz("FZ-061")
def test_t08_wishes_that_come_in_any_order_end_with_the_newest(freezer: FreezerProcess, victim: Victim) -> None:
    dice = random.Random(8)
    for _ in range(5):
        base = victim.generation
        wishes = [idle(base + 1), active(base + 2), idle(base + 3), active(base + 4)]
        dice.shuffle(wishes)
        for wish in wishes:
            assert victim.sidecar.call(put(victim.app.token, wish, secret=victim.secret)).status in (200, 409)
        victim.generation = base + 4
        assert victim.is_untouched(asleep=False)


# -- T-09, T-17, T-18: whoever is gone, the pod runs


@pytest.mark.fz("FZ-090")
def test_t09_a_sidecar_that_never_thaws_loses_its_lease(freezer: FreezerProcess) -> None:
    app = freezer.add_pod()
    sidecar, secret = freezer.sidecar(app)
    freeze(sidecar, app, secret, 1, lease=0.3)
    freezer.until(lambda: not freezer.frozen(app), "thawed", within=1.3)


# -- T-10, T-11: what must never be frozen


@pytest.mark.fz("FZ-073")
def test_t10_only_the_revisions_own_container_is_frozen(freezer: FreezerProcess, node: Node) -> None:
    pod = node.pod(("user-container", "queue-proxy", "istio-proxy"))
    works = [node.run(path) for path in pod.paths]
    ids = {one.name: one.id for one in pod.containers}
    from tests.support.knative_pod import knative_pod

    spec = knative_pod("t10-deployment-x", node=NODE, uid=pod.uid, ip="127.0.9.1", ids=ids)
    mesh = json.loads(json.dumps(spec["spec"]["containers"][0])) | {"name": "istio-proxy"}
    spec["spec"]["containers"].append(mesh)
    spec["status"]["containerStatuses"].append(
        json.loads(json.dumps(spec["status"]["containerStatuses"][0]))
        | {"name": "istio-proxy", "containerID": f"containerd://{ids['istio-proxy']}"}
    )
    stored = freezer.api.add_pod(spec)
    app = Resident(stored, pod, freezer.api.mint_token(stored), "127.0.9.1", works[0])
    sidecar, secret = freezer.sidecar(app)
    assert freeze(sidecar, app, secret, 1).json["state"] == "frozen"
    works[0].stands_still()
    works[1].goes_on()
    works[2].goes_on()
    assert "frozen 0" in Path(node.pod_at(pod), "cgroup.events").read_text(), "and never the pod as a whole"
    thaw(sidecar, app, secret, 2)


@pytest.mark.fz("FZ-127")
@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param({"metadata": {"labels": {"serving.knative.dev/revision": None}}}, id="no revision"),
        pytest.param({"spec": {"hostNetwork": True}}, id="hostNetwork"),
        pytest.param({"spec": {"hostPID": True}}, id="hostPID"),
        pytest.param({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}, id="a static pod"),
    ],
)
def test_t11_infrastructure_is_never_frozen(freezer: FreezerProcess, overrides: dict[str, Any]) -> None:
    app = freezer.add_pod(overrides=overrides)
    other = freezer.add_pod()
    freezer.until(lambda: other.uid in freezer.pods(), "the watch has come so far")
    with freezer.dial(app) as sidecar:
        reply = sidecar.call(put(app.token, idle(1)))
    assert reply.status in (403, 503) or reply.json["state"] == "running"
    assert not freezer.frozen(app)


def test_t11_a_denied_namespace_is_never_frozen(api: ApiServer, node: Node, tmp_path: Path) -> None:
    with FreezerProcess(api, node, tmp_path, {"namespaces": {"deny": ["default"]}}) as strict:
        strict.start()
        app = strict.add_pod()
        sidecar, secret = strict.sidecar(app)
        reply = freeze(sidecar, app, secret, 1)
        assert (reply.json["state"], reply.json["policy"]["reason"]) == ("running", "may not be frozen")
        assert "namespace" not in reply.body.decode() and "namespace default" in strict.pods()[app.uid]["why"]


# -- T-12: the journal is a file, and files can be written


@pytest.mark.fz("FZ-132")
def test_t12_a_journal_that_lies_moves_nobody_elses_cgroup(api: ApiServer, node: Node, tmp_path: Path) -> None:
    with FreezerProcess(api, node, tmp_path) as freezer:
        freezer.start()
        app, other = freezer.add_pod(), freezer.add_pod()
        for one in (app, other):
            sidecar, secret = freezer.sidecar(one)
            freeze(sidecar, one, secret, 1)
        freezer.kill()
        path = freezer.folder / "journal" / f"{app.uid}.json"
        record = json.loads(path.read_text())
        held = record["held"]["containers"][0]["freezer"]
        genuine = dict(held)
        for lie in ("../" * 9 + "etc", other.pod.paths[0], "burstable", "", genuine["path"] + "/../.."):
            held["path"] = lie
            path.write_text(json.dumps(record))
            freezer.start(ready=False)
            freezer.heard("a journal record cannot be read")
            assert freezer.frozen(other), "what the other record says still holds"
            freezer.kill()
            if not path.exists():
                break
        held.update(genuine)


# -- T-13, T-14: exhaustion


@pytest.mark.fz("FZ-126", "FZ-130")
def test_t13_a_thousand_bad_tokens_cost_the_api_server_next_to_nothing(
    freezer: FreezerProcess, victim: Victim, thief: Resident
) -> None:
    before, began = freezer.api.reviews, time.monotonic()
    forged = freezer.api.mint_token(thief.spec)[:-12]
    refused = {403: 0, 429: 0}
    for number in range(1000):
        token = f"{forged}{number:012d}" if number % 2 else f"a{number}.b.c"
        reply = attempt(freezer, put(token, active(1)), thief.address)
        if reply is not None:
            refused[reply.status] += 1
    allowed = 20 + 10 * (time.monotonic() - began)  # the limit on tokens that nobody knows yet, of one address
    assert freezer.api.reviews - before <= allowed and refused[429] > 0, refused
    victim.sleep()
    victim.wake()


@pytest.mark.fz("FZ-134")
def test_t14_slow_and_huge_callers_are_cut_off_while_sidecars_are_served(
    freezer: FreezerProcess, victim: Victim, thief: Resident
) -> None:
    there, source = ("127.0.0.1", freezer.port), (thief.address, 0)
    slow = [socket.create_connection(there, 10, source_address=source) for _ in range(6)]
    for each in slow:
        each.sendall(b"PUT /v1/pods/self/state HTTP/1.1\r\nHost: n\r\nX-Slow: ")
    began = time.monotonic()
    while time.monotonic() - began < 1.5:
        victim.sleep()
        victim.wake()
        threading.Event().wait(0.05)
    for each in slow:
        each.settimeout(5)
        try:
            assert each.recv(10) == b""
        except ConnectionResetError:
            pass
        each.close()
    assert time.monotonic() - began < 5.0, "2 s, whatever they send meanwhile"
    for data in (put(thief.token, b" " * 5000), b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000):
        reply = attempt(freezer, data, thief.address)
        assert reply is None or reply.status in (413, 429)
    many = [socket.create_connection(there, 10, source_address=source) for _ in range(40)]
    victim.sleep()
    victim.wake()
    for stranger in many:
        stranger.close()


# -- T-15, T-16: storms and flapping


@pytest.mark.fz("FZ-095")
def test_t15_a_thaw_of_everybody_does_not_hold_up_a_request(freezer: FreezerProcess) -> None:
    crowd = [Victim(freezer) for _ in range(20)]
    for each in crowd:
        each.sleep()
    freezer.ask("/v1/thaw-all", "POST")
    began = time.monotonic()
    crowd[-1].wake()
    assert time.monotonic() - began < 0.5
    freezer.until(lambda: not any(freezer.frozen(each.app) for each in crowd), "the others, at their pace")


@pytest.mark.fz("FZ-130")
def test_t16_a_flapping_sidecar_is_slowed_and_its_neighbour_is_not(freezer: FreezerProcess, victim: Victim) -> None:
    flapping = Victim(freezer)
    frozen, began = 0, time.monotonic()
    for number in range(1, 600):
        wish = idle(number) if number % 2 else active(number)
        reply = flapping.sidecar.call(put(flapping.app.token, wish, secret=flapping.secret))
        assert reply.status == 200 or (reply.status == 429 and number % 2), "a thaw is never refused"
        frozen += reply.status == 200 and reply.json["state"] == "frozen"
    assert frozen <= 101 + 50 * (time.monotonic() - began)  # the pace of one pod
    victim.sleep()
    victim.wake()


# -- T-20, T-21, T-22


def test_t20_a_refusal_tells_nothing_about_other_pods(freezer: FreezerProcess, victim: Victim, thief: Resident) -> None:
    there = attempt(freezer, get(victim.app.token), thief.address)
    elsewhere = freezer.add_pod(overrides={"spec": {"nodeName": "elsewhere"}})
    not_there = attempt(freezer, get(elsewhere.token), thief.address)
    assert there is not None and not_there is not None
    assert (there.status, there.body) == (not_there.status, not_there.body) == (403, there.body)
    assert victim.app.spec["metadata"]["name"] not in there.body.decode()


@pytest.mark.fz("FZ-102", "D-11")
def test_t21_no_token_and_no_secret_is_in_the_log_nor_on_the_operators_port(
    freezer: FreezerProcess, victim: Victim, thief: Resident
) -> None:
    victim.sleep()
    attempt(freezer, put(victim.app.token, active(1)), thief.address)
    attempt(freezer, put("not.a.token", active(1)), thief.address)
    said = freezer.said + "".join(
        freezer.ask(path)[1] for path in ("/v1/pods", "/metrics", "/v1/events?follow=false", "/readyz")
    )
    for part in (victim.app.token, *victim.app.token.split("."), victim.secret, "eyJ"):
        assert part not in said
    assert any(line.get("jti") for line in freezer.log if line["message"] == "caller refused")
    for file in (freezer.folder / "journal").iterdir():
        assert victim.secret not in file.read_text() and "eyJ" not in file.read_text()


def test_t22_a_pod_that_is_being_deleted_can_still_be_thawed_and_not_frozen(
    freezer: FreezerProcess, victim: Victim
) -> None:
    victim.sleep()
    freezer.api.terminate(victim.app.spec)
    freezer.until(lambda: not freezer.frozen(victim.app), "thawed by the watch")
    victim.generation += 1
    assert thaw(victim.sidecar, victim.app, victim.secret, victim.generation).status == 200
    assert freeze(victim.sidecar, victim.app, victim.secret, victim.generation + 1).kind == "terminal"


# -- T-25


def test_t25_cgroups_that_the_app_makes_inside_its_own_are_not_touched(freezer: FreezerProcess, node: Node) -> None:
    app = freezer.add_pod()
    inner = Path(node.at(app.pod.paths[0]), "inner")
    inner.mkdir()
    (inner / "cgroup.freeze").write_text("1")
    sidecar, secret = freezer.sidecar(app)
    freeze(sidecar, app, secret, 1)
    thaw(sidecar, app, secret, 2)
    assert (inner / "cgroup.freeze").read_text() == "1\n" and not freezer.frozen(app)
    inner.rmdir()


# -- FZ-055: a stop is never lost


@pytest.mark.fz("FZ-055")
def test_nobody_can_hold_a_pod_asleep_through_its_end(freezer: FreezerProcess, node: Node) -> None:
    app = freezer.add_pod(mode="handling")
    sidecar, secret = freezer.sidecar(app)
    freeze(sidecar, app, secret, 1)
    assert app.work is not None
    os.kill(int(Path(node.at(app.pod.paths[0]), "cgroup.procs").read_text().split()[0]), signal.SIGTERM)
    stop = threading.Event()

    def hold() -> None:
        generation = 2
        while not stop.is_set():
            sidecar.call(put(app.token, idle(generation), secret=secret))
            generation += 1
            stop.wait(0.05)

    holding = threading.Thread(target=hold)
    holding.start()
    try:
        assert app.work.process.wait(2.0) == 7, "it heard the signal and ended in its own way"
    finally:
        stop.set()
        holding.join()


def test_after_all_this_nothing_failed_inside(freezer: FreezerProcess) -> None:
    page = freezer.ask("/metrics")[1]
    assert "freezer_internal_errors_total 0.0" in page and "freezer_stuck_pods 0.0" in page
    assert not [line for line in freezer.log if line["severity"] in ("ERROR", "CRITICAL")]

"""Which pod a token speaks for, and every way in which it does not."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queueproxy.freeze.annotations import DEFAULTS
from queueproxy.freeze.node import claims as claims_module
from queueproxy.freeze.node.claims import (
    Refused,
    Standing,
    Verdict,
    Verdicts,
    confirm,
    decode_claims,
    objection,
    token_key,
)
from queueproxy.freeze.node.inventory import Rules, pod_facts
from tests.support.knative_pod import knative_pod, merged
from tests.support.tokens import AUDIENCE, base64url, claims_of, encoded, token

WALL = 1_800_000_000.0
POD = knative_pod()
META = POD["metadata"]
PAYLOAD = claims_of(POD, wall=WALL)
TOKEN = token(PAYLOAD)
GOOD = decode_claims(TOKEN, AUDIENCE, "node1", WALL)
ANSWER = {
    "apiVersion": "authentication.k8s.io/v1",
    "kind": "TokenReview",
    "status": {
        "authenticated": True,
        "audiences": [AUDIENCE],
        "user": {
            "username": "system:serviceaccount:default:default",
            "uid": "8cf3a83b-0d8a-4d9f-9b6b-3d5dbd4f4d0e",
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "extra": {
                "authentication.kubernetes.io/credential-id": ["JTI=jti"],
                "authentication.kubernetes.io/node-name": ["node1"],
                "authentication.kubernetes.io/pod-name": [META["name"]],
                "authentication.kubernetes.io/pod-uid": [META["uid"]],
            },
        },
    },
}
EXTRA = "authentication.kubernetes.io/"


def refusal(text: str, wall: float = WALL) -> str:
    with pytest.raises(Refused) as refused:
        decode_claims(text, AUDIENCE, "node1", wall)
    return str(refused.value)


@pytest.mark.fz("FZ-126")
def test_a_projected_token_names_its_pod() -> None:
    assert (GOOD.namespace, GOOD.pod, GOOD.uid) == ("default", META["name"], META["uid"])
    assert (GOOD.account, GOOD.node, GOOD.expires_at) == ("default", "node1", WALL + 3600)
    assert GOOD.jwt_id.startswith("jti-hello")


@pytest.mark.parametrize(
    "text",
    [token(claims_of(POD, wall=WALL, node=False)), token(PAYLOAD, aud=AUDIENCE), token(PAYLOAD, nbf=None)],
    ids=["of a cluster that binds no nodes", "one audience, not a list", "without nbf"],
)
def test_another_way_to_say_the_same_is_understood(text: str) -> None:
    assert decode_claims(text, AUDIENCE, "node1", WALL).uid == META["uid"]


@pytest.mark.fz("FZ-126", "FZ-127")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("", "not a token", id="empty"),
        pytest.param("secret", "not a token", id="one part"),
        pytest.param(TOKEN.rpartition(".")[0], "not a token", id="unsigned"),
        pytest.param(TOKEN.rpartition(".")[0] + ".", "not a token", id="empty signature"),
        pytest.param(TOKEN + ".more", "not a token", id="four parts"),
        pytest.param(TOKEN + "\n", "not a token", id="line end"),
        pytest.param(TOKEN + "=", "not a token", id="padded"),
        pytest.param(TOKEN.replace("e", "é", 1), "not a token", id="not ascii"),
        pytest.param(token(PAYLOAD, more="x" * 4096), "not a token", id="over 4 KiB"),
        pytest.param(f"{encoded({'alg': 'RS256'})}.{base64url(b'nojson')}.aaaa", "not a token", id="not json"),
        pytest.param(f"{encoded({'alg': 'RS256'})}.{encoded([1])}.aaaa", "not a token", id="json, not an object"),
        pytest.param(f"{encoded({'alg': 'RS256'})}.{encoded('x' * 4)}a.aaaa", "not a token", id="odd length"),
        pytest.param(f"{encoded({'alg': 'RS256'})}.{base64url(b'[' * 2000)}.aaaa", "not a token", id="deep"),
        pytest.param(f"{encoded({'alg': 'RS256'})}.{base64url(bytes([255] * 9))}.aaaa", "not a token", id="not utf-8"),
        pytest.param(token(PAYLOAD, head={"alg": "none"}), "not signed", id="alg none"),
        pytest.param(token(PAYLOAD, head={"alg": "NoNe"}), "not signed", id="alg NoNe"),
        pytest.param(token(PAYLOAD, head={"kid": "x"}), "not signed", id="no alg"),
        pytest.param(token(PAYLOAD, aud=["https://kubernetes.default.svc"]), "another audience", id="API audience"),
        pytest.param(token(PAYLOAD, aud=None), "another audience", id="no audience"),
        pytest.param(token(PAYLOAD, aud=[]), "another audience", id="empty audience"),
        pytest.param(token(PAYLOAD, aud={AUDIENCE: 1}), "another audience", id="audience is an object"),
        pytest.param(token(PAYLOAD, exp=WALL - 11), "expired", id="expired"),
        pytest.param(token(PAYLOAD, exp=None), "expired", id="no expiry"),
        pytest.param(token(PAYLOAD, exp="9999999999"), "expired", id="expiry as text"),
        pytest.param(token(PAYLOAD, exp=True), "expired", id="expiry as truth"),
        pytest.param(token(PAYLOAD, exp=float("inf")), "expired", id="never expires"),
        pytest.param(token(PAYLOAD, exp=float("nan")), "expired", id="expires at nan"),
        pytest.param(token(PAYLOAD, exp=10**400), "expired", id="expires beyond numbers"),
        pytest.param(token(PAYLOAD, nbf=WALL + 11), "not valid yet", id="from the future"),
        pytest.param(token(PAYLOAD | {"kubernetes.io": None}), "not bound to a pod", id="no claims"),
        pytest.param(token(PAYLOAD | {"kubernetes.io": []}), "not bound to a pod", id="claims are a list"),
        pytest.param(
            token(PAYLOAD, **{"kubernetes.io": {"pod": None}}), "not bound to a pod", id="bound to no pod (T-03)"
        ),
        pytest.param(
            token(PAYLOAD, **{"kubernetes.io": {"pod": {"uid": ""}}}), "not bound to a pod", id="empty uid"
        ),
        pytest.param(token(PAYLOAD, sub="system:node:node1"), "not a service account's", id="a node's"),
        pytest.param(
            token(PAYLOAD, sub="system:serviceaccount:other:default"), "not a service account's", id="namespaces differ"
        ),
        pytest.param(
            token(PAYLOAD, **{"kubernetes.io": {"node": {"name": "node2"}}}), "bound to another node", id="T-04"
        ),
    ],
)  # fmt: skip
def test_a_token_that_can_never_be_good_is_refused_without_asking(text: str, reason: str) -> None:
    assert refusal(text) == reason


def test_clocks_may_differ_a_little() -> None:
    assert decode_claims(TOKEN, AUDIENCE, "node1", WALL + 3609) and decode_claims(TOKEN, AUDIENCE, "node1", WALL - 9)
    assert refusal(TOKEN, WALL + 3610) == "expired" and refusal(TOKEN, WALL - 11) == "not valid yet"


@pytest.mark.fz("FZ-102")
def test_what_may_be_logged_of_a_token_is_printable_and_short() -> None:
    odd = decode_claims(token(PAYLOAD, jti="a\nb\x1b[31m" + "c" * 500), AUDIENCE, "node1", WALL)
    assert odd.jwt_id.isprintable() and len(odd.jwt_id) <= 64


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=60)
    | st.tuples(JSON, JSON).map(lambda parts: f"{encoded(parts[0])}.{encoded(parts[1])}.aaaa")
    | st.tuples(st.sampled_from(sorted(PAYLOAD)), JSON).map(lambda part: token(PAYLOAD | {part[0]: part[1]}))
)
def test_whatever_comes_is_claims_or_refused(text: str) -> None:
    try:
        decoded = decode_claims(text, AUDIENCE, "node1", WALL)
    except Refused:
        return
    assert decoded.uid and decoded.pod and decoded.namespace and decoded.node in ("", "node1")


# ---- the API server's answer


@pytest.mark.fz("FZ-125", "FZ-127")
def test_a_confirmed_token_speaks_for_the_pod_it_names() -> None:
    assert confirm(GOOD, ANSWER, AUDIENCE, "node1") == GOOD
    old = merged(ANSWER, {"status": {"user": {"extra": {EXTRA + "node-name": None}}}})
    assert confirm(GOOD, old, AUDIENCE, "node1") == GOOD


def user(**changes: Any) -> dict[str, Any]:
    return merged(ANSWER, {"status": {"user": changes}})


@pytest.mark.fz("FZ-125", "FZ-127")
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param({}, "not authenticated", id="empty"),
        pytest.param({"status": "Failure"}, "not authenticated", id="a status that is a word"),
        pytest.param(merged(ANSWER, {"status": {"authenticated": False}}), "not authenticated", id="no"),
        pytest.param(merged(ANSWER, {"status": {"authenticated": "true"}}), "not authenticated", id="yes, as a word"),
        pytest.param(
            merged(ANSWER, {"status": {"audiences": None}}), "authenticated for another audience", id="T-02, absent"
        ),
        pytest.param(
            merged(ANSWER, {"status": {"audiences": []}}), "authenticated for another audience", id="T-02, empty"
        ),
        pytest.param(
            merged(ANSWER, {"status": {"audiences": ["https://kubernetes.default.svc"]}}),
            "authenticated for another audience",
            id="T-02, the API server's",
        ),
        pytest.param(
            merged(ANSWER, {"status": {"audiences": AUDIENCE}}), "authenticated for another audience", id="a text"
        ),
        pytest.param(user(username="system:node:node1"), "authenticated as another account", id="a node"),
        pytest.param(
            user(username="system:serviceaccount:other:default"), "authenticated as another account", id="namespace"
        ),
        pytest.param(
            user(username="system:serviceaccount:default:other"), "authenticated as another account", id="account"
        ),
        pytest.param(user(username=None), "authenticated as another account", id="nobody"),
        pytest.param(user(extra=None), "authenticated for another pod", id="T-03, no extra"),
        pytest.param(user(extra={EXTRA + "pod-uid": []}), "authenticated for another pod", id="T-03, empty list"),
        pytest.param(user(extra={EXTRA + "pod-uid": "x"}), "authenticated for another pod", id="T-03, a text"),
        pytest.param(
            user(extra={EXTRA + "pod-uid": [META["uid"], "other"]}), "authenticated for another pod", id="two pods"
        ),
        pytest.param(user(extra={EXTRA + "pod-uid": ["other"]}), "authenticated for another pod", id="T-01, uid"),
        pytest.param(user(extra={EXTRA + "pod-name": ["other"]}), "authenticated for another pod", id="T-01, name"),
        pytest.param(user(extra={EXTRA + "node-name": ["node2"]}), "authenticated for another node", id="T-04"),
        pytest.param(user(extra={EXTRA + "node-name": []}), "authenticated for another node", id="T-04, empty"),
    ],
)
def test_an_answer_that_does_not_confirm_refuses(answer: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        confirm(GOOD, answer, AUDIENCE, "node1")


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["authenticated", "audiences", "user"]), JSON)
def test_an_answer_with_any_part_replaced_confirms_nothing_or_the_same(part: str, value: Any) -> None:
    answer = deepcopy(ANSWER)
    answer["status"][part] = value
    try:
        assert confirm(GOOD, answer, AUDIENCE, "node1") == GOOD and value is True
    except Refused:
        pass


# ---- what this node knows


FACTS = pod_facts(knative_pod(ip="10.244.0.39"), DEFAULTS, Rules("node1"))


@pytest.mark.fz("FZ-128")
@pytest.mark.parametrize(
    ("ips", "peer", "fits"),
    [
        (("10.244.0.39",), "10.244.0.39", True),
        (("10.244.0.39",), "::ffff:10.244.0.39", True),
        (("10.244.0.39", "fd00::1"), "fd00:0:0::1", True),
        (("fe80::1",), "fe80::1%eth0", True),
        (("10.244.0.39",), None, True),
        (("10.244.0.39",), "10.244.0.40", False),
        (("10.244.0.39",), "", False),
        (("odd",), "even", False),
        ((), "10.244.0.39", False),
    ],
)
def test_the_call_must_come_from_the_pods_address(ips: tuple[str, ...], peer: str | None, fits: bool) -> None:
    assert (objection(GOOD, FACTS._replace(ips=ips), peer) == "") is fits


@pytest.mark.fz("FZ-127")
@pytest.mark.parametrize("change", [{"name": "other"}, {"namespace": "other"}, {"uid": "other"}], ids=str)
def test_the_pod_must_be_the_one_this_node_knows(change: dict[str, str]) -> None:
    assert objection(GOOD, FACTS._replace(**change), "10.244.0.39")  # type: ignore[arg-type]


@pytest.mark.fz("FZ-064")
def test_a_pod_that_is_not_known_yet_is_no_objection() -> None:
    assert objection(GOOD, None, "192.0.2.1") == ""


# ---- what was learned


KEY = token_key(TOKEN)


@pytest.mark.fz("FZ-126")
def test_a_yes_is_fresh_for_five_minutes_and_kept_while_the_token_lives() -> None:
    kept = Verdicts()
    assert kept.get(0.0, WALL, KEY) is None and kept.aged(WALL, KEY) is None
    assert kept.confirmed(0.0, WALL, KEY, GOOD) == Verdict(Standing.GOOD, GOOD)
    assert kept.get(299.9, WALL + 299.9, KEY) == Verdict(Standing.GOOD, GOOD)
    assert kept.get(300.0, WALL + 300.0, KEY) is None
    assert kept.aged(WALL + 3600, KEY) == Verdict(Standing.STALE, GOOD)
    assert kept.aged(WALL + 3610, KEY) is None
    assert kept.get(3610.0, WALL + 3610, KEY) is None and repr(kept) == "<Verdicts 0>"


@pytest.mark.fz("FZ-126")
def test_a_yes_is_not_fresh_for_longer_than_its_token_lives() -> None:
    kept = Verdicts()
    kept.confirmed(0.0, WALL, KEY, GOOD._replace(expires_at=WALL + 60))
    assert kept.get(59.0, WALL + 59, KEY) is not None and kept.get(60.0, WALL + 60, KEY) is None


def test_how_long_a_yes_is_fresh_can_be_less() -> None:
    kept = Verdicts(fresh_for=5.0)
    kept.confirmed(0.0, WALL, KEY, GOOD)
    assert kept.get(4.9, WALL, KEY) is not None and kept.get(5.0, WALL, KEY) is None


@pytest.mark.fz("FZ-126")
def test_a_no_is_kept_for_ten_seconds() -> None:
    kept = Verdicts()
    assert kept.refused(0.0, KEY, "why").standing is Standing.REFUSED
    assert kept.get(9.9, WALL, KEY) == Verdict(Standing.REFUSED, None, "why")
    assert kept.aged(WALL, KEY) is None
    assert kept.get(10.0, WALL, KEY) is None


def test_a_no_replaces_an_earlier_yes() -> None:
    kept = Verdicts()
    kept.confirmed(0.0, WALL, KEY, GOOD)
    kept.refused(301.0, KEY, "revoked")
    assert kept.aged(WALL, KEY) is None


@pytest.mark.fz("FZ-126")
def test_a_deleted_pods_tokens_are_forgotten() -> None:
    kept = Verdicts()
    kept.confirmed(0.0, WALL, KEY, GOOD)
    kept.confirmed(0.0, WALL, b"other", GOOD._replace(uid="other"))
    kept.gone(GOOD.uid)
    assert kept.get(1.0, WALL, KEY) is None and kept.get(1.0, WALL, b"other") is not None


@pytest.mark.slow
@pytest.mark.fz("FZ-126")
def test_memory_is_bounded_and_a_flood_of_bad_tokens_pushes_out_no_good_one() -> None:
    kept = Verdicts()
    kept.confirmed(0.0, WALL, KEY, GOOD)
    for number in range(2 * claims_module._KEPT_MAX):
        kept.refused(0.0, number.to_bytes(4, "big"), "why")
    assert repr(kept) == f"<Verdicts {claims_module._KEPT_MAX}>"
    assert kept.get(1.0, WALL, KEY) is not None
    for number in range(2 * claims_module._KEPT_MAX):
        kept.confirmed(2.0, WALL, b"yes" + number.to_bytes(4, "big"), GOOD)
    assert repr(kept) == f"<Verdicts {claims_module._KEPT_MAX}>" and kept.get(3.0, WALL, KEY) is None

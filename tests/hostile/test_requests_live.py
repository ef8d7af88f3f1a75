"""Every hostile request against the real process: what the client hears, what the app sees, what is counted."""

import re
from collections.abc import Iterator

import pytest

from tests.hostile.corpus import Case, Outcome, corpus
from tests.support.rawhttp import Wire
from tests.support.sidecar import ONE_LOOP, USER_METRICS, Pod, one_pod

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("hostile requests"), ONE_LOOP]

CASES = corpus("requests")


@pytest.fixture(scope="module")
def pod(loop: str) -> Iterator[Pod]:
    # One slot: if a hostile request kept it, every test after it would hang.
    with one_pod(
        loop=loop, CONTAINER_CONCURRENCY="1", OBSERVABILITY_CONFIG='{"requestMetrics":{"protocol":"prometheus"}}'
    ) as pod:
        pod.sidecar.heard(f"Starting http server user-metrics:{USER_METRICS}")  # after the request listeners
        yield pod


@pytest.fixture(autouse=True)
def clean(pod: Pod) -> Iterator[None]:
    yield
    pod.fresh()


def counted(pod: Pod) -> tuple[int, int, int]:
    """(messages refused, requests that reached the app's side, requests in the limiter) so far."""
    page = pod.sidecar.get("/metrics", port=USER_METRICS).body.decode()

    def total(name: str) -> int:
        return sum(int(float(value)) for value in re.findall(rf"^{name} ([0-9.e+]+)$", page, re.M))

    return (
        total(r'kn_serving_refused_total\{reason="bad_message"\}'),
        total(r"kn_serving_invocation_duration_seconds_count\{[^}]*\}"),
        total(r"kn_serving_queue_depth"),
    )


def play(pod: Pod, client: Wire, outcome: Outcome) -> None:
    """One outcome, seen from both sides."""
    if outcome.kind == "forward":
        asked = pod.origin.request()
        assert (asked.head, asked.message.body) == (outcome.out, outcome.body)
        assert [b"%b: %b\r\n" % field for field in asked.message.trailers] == outcome.trailers
        asked.wire.answer(body=b"")
        assert client.response().status == 200
    elif outcome.kind == "reject":
        answer = client.response()
        status, _, reason = outcome.text.partition(" ")
        assert (answer.status, answer.get("connection")) == (int(status), b"close")
        assert answer.get("content-type") == b"text/plain; charset=utf-8"
        assert reason.encode() in answer.start + b"\n" + answer.body
        assert client.gone()
    elif outcome.kind == "local":
        answer = client.response()
        assert (answer.status, answer.body) == (int(outcome.text), b"")
    else:
        assert outcome.kind == "close"
        assert client.drained() in ("end", "reset")


def play_partial(pod: Pod, case: Case) -> None:
    """The head is forwarded; its body breaks, or does not end."""
    outcome = case.outcomes[0]
    client = pod.client()
    at = case.data.index(b"\r\n\r\n") + 4
    client.send(case.data[:at])
    asked = pod.origin.began()
    assert asked.head == outcome.out
    client.send(case.data[at:])
    if outcome.kind == "begun":
        if b"Transfer-Encoding" in asked.head:
            assert outcome.body == (asked.wire.chunk() if outcome.body else b"")
        else:
            assert asked.wire.exactly(len(outcome.body)) == outcome.body
        client.close()
    else:
        answer = client.response()
        assert (answer.status, answer.body) == (502, outcome.text.encode() + b"\n")
        assert answer.get("connection") == b"close"
        assert client.gone()
    try:
        asked.wire.rest()
    except ConnectionResetError:
        pass
    assert not asked.wire.held.endswith(b"0\r\n\r\n"), "the app was told that the body is whole"


@pytest.mark.qp("QP-053", "QP-054", "QP-132")
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_it_gets_its_verdict_and_leaves_nothing_behind(pod: Pod, case: Case) -> None:
    refused, reached, _ = counted(pod)
    lines = len(pod.sidecar.lines)
    last = case.outcomes[-1]
    if last.kind in ("abort", "begun"):
        play_partial(pod, case)
    else:
        client = pod.client()
        try:
            client.send(case.data)
        except ConnectionError:
            assert last.kind == "reject"  # a mebibyte, of which the end was not read
        for outcome in case.outcomes:
            if outcome.kind == "wait":
                pod.noticed()
                assert client.quiet()
            else:
                play(pod, client, outcome)
    client_ok = pod.served()
    assert client_ok.status == 200
    forwarded = sum(1 for outcome in case.outcomes if outcome.out)
    assert counted(pod) == (refused + (last.kind in ("reject", "abort")), reached + forwarded + 1, 0)
    assert pod.sidecar.lines[lines:] == [], "a client filled the log"


@pytest.mark.qp("QP-132")
def test_refused_ones_are_not_in_the_autoscalers_view(pod: Pod) -> None:
    refused = [case for case in CASES if [outcome.kind for outcome in case.outcomes] == ["reject"] and not case.large]
    assert len(refused) > 100
    pod.sidecar.whole_stat()  # a window has just begun
    for case in refused[:100]:
        client = pod.client()
        client.send(case.data)
        assert client.gone()
    stat = pod.sidecar.next_stat()
    assert set(stat) == {"pod_name", "process_uptime"}, stat

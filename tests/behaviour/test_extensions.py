"""Extensions in the real process: the example as pip installs it, one that makes every kind of trouble, broken ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.installed import lay, pip_install, wheel
from tests.support.netns import network_namespace
from tests.support.origin import Origin
from tests.support.rawhttp import Message
from tests.support.sidecar import USER_METRICS, Pod, Sidecar, environment, one_pod

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("extensions")]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "extension_apikey"
POLICY = 7070
TROUBLE = f"""
import asyncio, sys
from queueproxy.extensions import Answer, Extension

class Trouble(Extension):
    def __init__(self, setup):
        self.log = setup.log

    def act(self, where, request):
        what = (request.headers.get(b"X-" + where) or b"").decode()
        if what == "raise":
            raise ZeroDivisionError("trouble")
        if what == "exit":
            sys.exit(7)
        if what == "recurse":
            self.act(where, request)
        if what == "smuggle":
            request.headers.set(b"X-A", b"1\\r\\nX-Evil: 1")
        if what == "length":
            request.headers.set(b"Content-Length", b"100")
        return what

    def request(self, request):
        what = self.act(b"Request", request)
        if what == "garbage":
            return 7
        if what == "answer":
            return Answer(403, b"no")
        if what == "think":
            return self.think(request)

    async def think(self, request):
        what = self.act(b"Think", request)
        reader, writer = await asyncio.open_connection("127.0.0.1", {POLICY})
        writer.write(b"GET " + request.target + b" HTTP/1.1\\r\\nHost: policy\\r\\n\\r\\n")
        verdict = await reader.readline()
        writer.close()
        request.headers.set(b"X-Verdict", verdict.split()[1])
        return None if b" 200 " in verdict else Answer(403, verdict.split()[1])

    def response(self, request, response):
        self.act(b"Response", request)
        response.headers.set(b"X-Extended", b"yes")

    def finished(self, request, outcome):
        self.act(b"Finished", request)

    def close(self):
        self.log.info("trouble is over")
"""
OBSERVED = json.dumps({
    "requestMetrics": {"protocol": "prometheus"},
    "tracing": {"protocol": "stdout"},
    "enableRequestLog": True,
    "requestLogTemplate": '{"code": {{.Response.Code}}, "size": {{.Response.Size}}}',
})  # fmt: skip


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def pod(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """On uvloop with everything that watches requests, on asyncio without."""
    place = lay(tmp_path_factory.mktemp("site"), "ext_trouble", TROUBLE, {"trouble": "ext_trouble:Trouble"})
    observed = OBSERVED if request.param == "uvloop" else ""
    with one_pod(loop=request.param, PYTHONPATH=str(place), OBSERVABILITY_CONFIG=observed) as pod:
        yield pod


@pytest.fixture(autouse=True)
def fresh(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "pod" in request.fixturenames:
        request.getfixturevalue("pod").fresh()


def asked(pod: Pod, *lines: str) -> Message:
    """One request; the origin answers it if it gets there."""
    client = pod.client()
    client.ask("GET", "/x", *lines)
    if not any(line in lines for line in REFUSED):
        reached = pod.origin.request()
        assert b"X-Evil" not in reached.head
        reached.wire.answer(200, body=b"hello")
    return client.response()


REFUSED = tuple(f"X-Request: {what}" for what in ("raise", "exit", "recurse", "smuggle", "length", "garbage", "answer"))


def test_it_says_what_is_in_use(pod: Pod) -> None:
    event = pod.sidecar.said("Extensions are in use")
    assert event is not None and event["extensions"] == ["trouble (ext_trouble 1.0)"]


def test_an_ordinary_request_goes_through_it(pod: Pod) -> None:
    answer = asked(pod)
    assert (answer.status, answer.body, answer.get("X-Extended")) == (200, b"hello", b"yes")
    assert pod.sidecar.health().get("X-Extended") is None, "probes do not"


@pytest.mark.parametrize("what", ["raise", "exit", "recurse", "smuggle", "length"])
@pytest.mark.parametrize("hook", ["Request", "Response", "Finished"])
def test_whatever_it_does_wrong_costs_its_own_request(pod: Pod, hook: str, what: str) -> None:
    answer = asked(pod, f"X-{hook}: {what}")
    if hook == "Finished":
        assert (answer.status, answer.body) == (200, b"hello")
    else:
        assert (answer.status, answer.body) == (500, b"extension failed\n")
    assert asked(pod).status == 200
    pod.origin.fresh()


def test_garbage_is_no_answer_and_an_answer_is_one(pod: Pod) -> None:
    assert asked(pod, "X-Request: garbage").status == 500
    answer = asked(pod, "X-Request: answer")
    assert (answer.status, answer.body, answer.get("X-Nobody")) == (403, b"no", None)
    assert pod.origin.accepted == 0, "the app heard of neither"


@pytest.mark.parametrize("verdict", [200, 451])
def test_it_may_ask_somebody_else_while_other_requests_go_on(pod: Pod, verdict: int) -> None:
    policy = Origin(pod.namespace, POLICY)
    try:
        client = pod.client()
        client.ask("GET", "/doubtful", "X-Request: think")
        question = policy.request()
        assert question.target == b"/doubtful"
        assert asked(pod).status == 200, "nobody waits for its thoughts"
        question.wire.answer(verdict)
        if verdict == 200:
            reached = pod.origin.request()
            assert reached.message.get("X-Verdict") == b"200"
            reached.wire.answer(200, body=b"hello")
            assert client.response().body == b"hello"
        else:
            answer = client.response()
            assert (answer.status, answer.body) == (403, b"451")
    finally:
        policy.close()


@pytest.mark.parametrize("what", ["raise", "exit"])
def test_a_thought_that_goes_wrong_costs_its_own_request(pod: Pod, what: str) -> None:
    client = pod.client()
    client.ask("GET", "/", "X-Request: think", f"X-Think: {what}")
    assert client.response().status == 500
    assert asked(pod).status == 200


def test_failures_are_counted_and_the_log_is_not_flooded(pod: Pod) -> None:
    client = pod.client()
    for _ in range(300):
        client.ask("GET", "/", "X-Request: raise")
        assert client.response().status == 500
    pod.noticed()
    told = [event for event in pod.sidecar.log if event.get("message") == "Extension failed"]
    assert sorted(event["hook"] for event in told) in (["request"], ["finished", "request", "response"])
    assert all(event["extension"] == "trouble" and "ext_trouble.py" in event["stacktrace"] for event in told)
    if pod.sidecar.listens(USER_METRICS):
        page = pod.sidecar.get("/metrics", port=USER_METRICS).body.decode()
        (family,) = [f for f in text_string_to_metric_families(page) if f.name == "kn_serving_extension_failures"]
        counts = {s.labels["hook"]: s.value for s in family.samples if s.name.endswith("_total")}
        assert counts["request"] >= 300 and set(counts) == {"request", "response", "finished"}


@pytest.mark.parametrize("pod", ["uvloop"], indirect=True, scope="module")
def test_logs_and_traces_tell_of_extended_requests_as_of_others(pod: Pod) -> None:
    before = len(pod.sidecar.output)
    asked(pod, "X-Request: answer")
    pod.sidecar.until(lambda: any('"code": 403' in line for line in pod.sidecar.output[before:]))
    assert any('"code": 403, "size": 2' in line for line in pod.sidecar.output[before:])
    asked(pod)
    pod.sidecar.until(lambda: any('"code": 200, "size": 5' in line for line in pod.sidecar.output[before:]))


# -- the example


def test_the_example_as_pip_installs_it(tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip_install(wheel(EXAMPLE, tmp_path), site)
    podinfo, digest = tmp_path / "annotations", sha256(b"s3cret").hexdigest()
    podinfo.write_text(f'other="x"\nexample.com/apikeys="{digest}=ann"\n')
    with one_pod(PYTHONPATH=str(site), QUEUEPROXY_PODINFO=str(podinfo)) as pod:
        event = pod.sidecar.said("Extensions are in use")
        assert event is not None and event["extensions"] == ["apikey (queueproxy_apikey 1.0)"]
        denied = pod.sidecar.get("/", "X-Caller: root")
        assert (denied.status, denied.get("WWW-Authenticate")) == (401, b"Bearer")
        assert denied.body == b"a valid API key is needed\n"
        client = pod.client()
        client.ask("GET", "/", "Authorization: Bearer s3cret", "X-Caller: root")
        reached = pod.origin.request()
        assert reached.message.all("X-Caller") == [b"ann"] and b"s3cret" not in reached.head
        reached.wire.answer(200, body=b"hello ann")
        answer = client.response()
        assert (answer.body, answer.get("Vary")) == (b"hello ann", b"Authorization")
        assert pod.sidecar.health().body == b"queue"
    with one_pod(PYTHONPATH=str(site), QUEUEPROXY_EXTENSIONS="off") as pod:
        pod.served()
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", str(EXAMPLE)],
        env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr


# -- starting and ending


@pytest.mark.parametrize(
    ("changes", "message", "error"),
    [
        ({"QUEUEPROXY_PODINFO": "/nowhere"}, "Extension apikey could not be loaded", "FileNotFoundError"),
        ({"QUEUEPROXY_EXTENSIONS": "apikey,other"}, "Extension other is not installed", "installed: apikey"),
    ],
    ids=["broken", "missing"],
)
def test_without_an_extension_that_should_be_there_it_does_not_start(
    tmp_path: Path, changes: dict[str, str], message: str, error: str
) -> None:
    place = lay(
        tmp_path / "site", "ext_apikey", (EXAMPLE / "queueproxy_apikey.py").read_text(), {"apikey": "ext_apikey:ApiKey"}
    )
    with network_namespace() as namespace:
        sidecar = Sidecar(namespace, environment(PYTHONPATH=str(place), **changes))
        try:
            assert sidecar.ended() == 1
        finally:
            sidecar.stop()
        (event,) = sidecar.log
        assert event["severity"] == "EMERGENCY" and event["message"] == message
        assert error in event["error"] and "QUEUEPROXY_EXTENSIONS" in event["remedy"]


SERVES_BRIEFLY = """
import os, sys
from queueproxy.app import serve
from queueproxy.drain import Settings
sys.exit(serve(os.environ, drain_settings=Settings(quiet_for=0.1)))
"""


def test_an_extension_is_told_of_the_end(tmp_path: Path) -> None:
    place = lay(tmp_path / "site", "ext_trouble", TROUBLE, {"trouble": "ext_trouble:Trouble"})
    with one_pod(PYTHONPATH=str(place), under=(sys.executable, "-c", SERVES_BRIEFLY)) as pod:
        held = pod.client()
        held.ask("GET", "/", "X-Request: think")  # nobody listens at the policy's port
        assert held.response().status == 500
        pod.served()
        pod.sidecar.signal(signal.SIGTERM)
        assert pod.sidecar.ended(60) == 0
        messages = [event["message"] for event in pod.sidecar.log]
        assert messages.index("trouble is over") > messages.index("Shutting down server: main")

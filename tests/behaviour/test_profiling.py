"""Port 8008 of the real process: there only where it is wanted, and what it says while requests go on."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from queueproxy.admin.profiling import LIMITS
from tests.support.netns import NetworkNamespace, network_namespace
from tests.support.rawhttp import Message
from tests.support.sidecar import AUTOSCALER, Sidecar, environment

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("profiling")]

PROFILING = 8008
ON = json.dumps({"runtime": {"profiling": "enabled"}})
OFF = json.dumps({"runtime": {"profiling": "disabled"}})
IMPORTED = re.compile(r"import time:.*\| +(queueproxy\.admin\.profiling\w*|tracemalloc)$")


@contextmanager
def running(namespace: NetworkNamespace, loop: str = "uvloop", **changes: str | None) -> Iterator[Sidecar]:
    sidecar = Sidecar(namespace, environment(**changes), loop=loop)
    try:
        yield sidecar.started()
    finally:
        sidecar.stop()


@pytest.fixture(scope="module")
def namespace() -> Iterator[NetworkNamespace]:
    with network_namespace() as namespace:
        yield namespace


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def sidecar(request: pytest.FixtureRequest) -> Iterator[Sidecar]:
    """One process for all questions."""
    with network_namespace() as namespace, running(namespace, request.param, OBSERVABILITY_CONFIG=ON) as sidecar:
        yield sidecar


def asked(sidecar: Sidecar, page: str, *, method: str = "GET") -> Message:
    return sidecar.get(f"/debug/pprof/{page}", port=PROFILING, method=method)


def text(sidecar: Sidecar, page: str) -> str:
    answer = asked(sidecar, page)
    assert answer.status == 200, answer.body
    return answer.body.decode()


@contextmanager
def load(sidecar: Sidecar) -> Iterator[list[int]]:
    """The statuses of scrapes that one connection makes without pause."""
    statuses: list[int] = []
    enough = threading.Event()
    wire = sidecar.connect(AUTOSCALER)

    def scrape() -> None:
        while not enough.is_set():
            wire.ask("GET", "/metrics")
            statuses.append(wire.response().status)

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        yield statuses
    finally:
        enough.set()
        scraper.join()
        wire.close()


# -- whether it is there


@pytest.mark.qp("QP-046")
@pytest.mark.parametrize(
    ("changes", "there"),
    [
        pytest.param({}, False, id="nothing-said"),
        pytest.param({"OBSERVABILITY_CONFIG": OFF}, False, id="disabled"),
        pytest.param({"OBSERVABILITY_CONFIG": OFF, "PROFILING_PORT": "8008"}, False, id="a-port-enables-nothing"),
        pytest.param({"OBSERVABILITY_CONFIG": ON}, True, id="enabled"),
        pytest.param({"OBSERVABILITY_CONFIG": None, "ENABLE_PROFILING": "true"}, True, id="enabled-before-1.19"),
    ],
)
def test_it_is_opened_and_loaded_only_where_it_is_enabled(
    namespace: NetworkNamespace, changes: dict[str, str | None], there: bool
) -> None:
    with running(namespace, **changes, PYTHONPROFILEIMPORTTIME="1") as sidecar:
        assert any(line.startswith("import time:") for line in sidecar.lines), "the interpreter does not tell"
        assert sidecar.listens(PROFILING) == there
        assert bool([line for line in sidecar.lines if IMPORTED.match(line)]) == there
        assert (sidecar.said(f"Starting http server profile:{PROFILING}") is not None) == there


@pytest.mark.qp("QP-046")
def test_its_port_may_be_another(namespace: NetworkNamespace) -> None:
    with running(namespace, OBSERVABILITY_CONFIG=ON, PROFILING_PORT="6060") as sidecar:
        assert not sidecar.listens(PROFILING)
        assert sidecar.get("/debug/pprof/", port=6060).status == 200


@pytest.mark.qp("QP-011")
def test_a_port_that_is_taken_ends_the_start(namespace: NetworkNamespace) -> None:
    with namespace.inside():
        taken = socket.create_server(("::", PROFILING), family=socket.AF_INET6)
    with taken:
        sidecar = Sidecar(namespace, environment(OBSERVABILITY_CONFIG=ON))
        assert sidecar.ended(30) == 1
    event = sidecar.said("Failed to bring up queue-proxy, shutting down.")
    assert event is not None
    assert event["error"] == "profile server failed to serve: listen tcp :8008: bind: address already in use"


# -- what it says


@pytest.mark.qp("QP-046")
def test_the_index_names_pages_that_answer(sidecar: Sidecar) -> None:
    index = asked(sidecar, "")
    assert (index.status, index.get("Content-Type")) == (200, b"text/html; charset=utf-8")
    links = re.findall(r'href="([^"]+)"', index.body.decode())
    assert len(links) == 7
    for link in links:
        needs = link.rpartition("/")[2] in ("profile", "wall", "heap", "lag")
        assert sidecar.get(f"{link}?seconds=1" if needs else link, port=PROFILING).status == 200, link


@pytest.mark.qp("QP-046", "QP-052")
@pytest.mark.parametrize("path", ["/", "/debug/pprof", "/debug/pprof/symbol", "/debug/pprof/profile/", "/metrics"])
def test_elsewhere_is_nothing(sidecar: Sidecar, path: str) -> None:
    answer = sidecar.get(path, port=PROFILING)
    assert (answer.status, answer.body) == (404, b"404 page not found\n")


@pytest.mark.qp("QP-046")
def test_a_cpu_profile_names_what_ran_and_requests_go_on(sidecar: Sidecar) -> None:
    with load(sidecar) as statuses:
        before = len(statuses)
        profile = text(sidecar, "profile?seconds=2&hz=250")
        during = len(statuses) - before
    stacks = dict(line.rsplit(" ", 1) for line in profile.splitlines())
    assert sum(map(int, stacks.values())) >= 20, "hardly any sample in two busy seconds"
    assert all(stack.startswith("_run_module_as_main (") for stack in stacks), "not the whole stack"
    served = [stack for stack in stacks if ";AdminConnection.data_received (queueproxy/admin/server.py:" in stack]
    assert served, profile
    assert during > 50 and set(statuses) == {200}


@pytest.mark.qp("QP-046")
def test_a_cpu_profile_for_speedscope(sidecar: Sidecar) -> None:
    with load(sidecar):
        answer = asked(sidecar, "profile?seconds=1&hz=250&format=speedscope")
    assert answer.get("Content-Type") == b"application/json"
    document = json.loads(answer.body)
    (profile,) = document["profiles"]
    names = [frame["name"] for frame in document["shared"]["frames"]]
    assert "AdminConnection.data_received" in names
    assert {index for stack in profile["samples"] for index in stack} == set(range(len(names)))
    assert profile["endValue"] == pytest.approx(sum(profile["weights"]))
    assert 0.05 < profile["endValue"] < 1.5, "weights are not seconds of CPU time"


@pytest.mark.qp("QP-046")
def test_an_idle_process_uses_no_time_and_waits_in_its_loop(sidecar: Sidecar) -> None:
    busy = sum(int(line.rsplit(" ", 1)[1]) for line in text(sidecar, "profile?seconds=1").splitlines())
    assert busy < 0.2 * LIMITS["hz"].default
    waiting = [line for line in text(sidecar, "wall?seconds=1").splitlines() if line.startswith("[MainThread] (")]
    most, count = waiting[0].rsplit(" ", 1)
    assert ";serve (queueproxy/app.py:" in most
    assert int(count) > 10


@pytest.mark.qp("QP-046")
def test_a_second_profile_waits_its_turn(sidecar: Sidecar) -> None:
    wire = sidecar.connect(PROFILING)
    try:
        wire.ask("GET", "/debug/pprof/profile?seconds=2")
        # The first answer on another connection could overtake; the process is asked until it says that it is busy.
        answers = [asked(sidecar, "lag?seconds=1").status for _ in range(2)]
        assert 409 in answers
        assert wire.response().status == 200
        assert asked(sidecar, "wall?seconds=1").status == 200
    finally:
        wire.close()


@pytest.mark.qp("QP-046")
def test_a_client_that_leaves_does_not_keep_the_profiler(sidecar: Sidecar) -> None:
    wire = sidecar.connect(PROFILING)
    wire.ask("GET", "/debug/pprof/wall?seconds=1")
    wire.close()
    statuses = []
    while not statuses or statuses[-1] == 409:
        statuses.append(asked(sidecar, "lag?seconds=1").status)
    assert statuses[-1] == 200
    assert sidecar.health().status in (200, 503)


@pytest.mark.qp("QP-046")
def test_stacks_timers_and_tasks(sidecar: Sidecar) -> None:
    said = text(sidecar, "threads")
    main = said.partition("thread MainThread\n")[2].partition("\n\n")[0]
    assert re.search(r"^  queueproxy/app\.py:\d+ serve: code = loop\.run_until_complete", main, re.M), said
    assert "data_received" not in main, "it shows how it was asked"
    assert re.search(r"^  \d+ Sidecar\._tick$", said, re.M), said
    assert re.search(r"^    Sidecar\.run \(queueproxy/app\.py\)$", said, re.M), said


@pytest.mark.qp("QP-046")
def test_memory_held_by_connections_that_came_meanwhile(sidecar: Sidecar) -> None:
    asking = sidecar.connect(PROFILING)
    asking.ask("GET", "/debug/pprof/heap?seconds=3&depth=4&top=1000")
    kept = []
    while asked(sidecar, "lag?seconds=1").status != 409:
        pass  # until it has begun
    for _ in range(200):
        wire = sidecar.connect(AUTOSCALER)
        wire.ask("GET", "/metrics")
        assert wire.response().status == 200
        kept.append(wire)
    said = asking.response().body.decode()
    for wire in (asking, *kept):
        wire.close()
    found = re.search(r"(\d+) bytes in (\d+) blocks\n(?:    .*\n)*    queueproxy/admin/server\.py:\d+\n", said)
    assert found is not None, said[:2000]
    assert int(found[2]) >= 200


@pytest.mark.qp("QP-046")
def test_objects_by_type(sidecar: Sidecar) -> None:
    kept = []
    for _ in range(50):
        wire = sidecar.connect(AUTOSCALER)
        wire.ask("GET", "/metrics")
        assert wire.response().status == 200
        kept.append(wire)
    said = text(sidecar, "objects?top=1000")
    for wire in kept:
        wire.close()
    found = re.search(r"^ *(\d+) queueproxy\.admin\.server\.AdminConnection$", said, re.M)
    assert found is not None and int(found[1]) >= 50, said
    assert len(text(sidecar, "objects?top=3").splitlines()) == 5


@pytest.mark.qp("QP-046")
def test_the_lag_of_the_loop(sidecar: Sidecar) -> None:
    said = text(sidecar, "lag?seconds=1")
    found = re.fullmatch(
        r"measurements (\d+)\np50 ([\d.]+) ms\np90 ([\d.]+) ms\np99 ([\d.]+) ms\nmax ([\d.]+) ms\n", said
    )
    assert found is not None, said
    assert 5 <= int(found[1]) <= 100
    figures = [float(figure) for figure in found.groups()[1:]]
    assert figures == sorted(figures) and figures[0] < 1000


@pytest.mark.qp("QP-046")
@pytest.mark.parametrize(
    "page", ["profile?seconds=61", "wall?hz=0", "heap?depth=x", "lag?seconds=", "profile?format=go"]
)
def test_what_is_out_of_bounds_is_refused_and_starts_nothing(sidecar: Sidecar, page: str) -> None:
    assert asked(sidecar, page).status == 400
    assert asked(sidecar, "wall?seconds=1").status == 200


@pytest.mark.qp("QP-046")
def test_other_methods(sidecar: Sidecar) -> None:
    assert asked(sidecar, "", method="HEAD").body == b""
    answer = asked(sidecar, "profile", method="POST")
    assert (answer.status, answer.get("Allow")) == (405, b"GET, HEAD")

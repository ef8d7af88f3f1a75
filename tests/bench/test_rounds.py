"""Proves queueproxy.bench.rounds: the order of turns, and a whole round with the real bare pair."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from queueproxy.bench.drive import SCENARIOS, Driver, LoadError
from queueproxy.bench.figures import Measure
from queueproxy.bench.rounds import Plan, Rounds, origin, turns
from queueproxy.bench.subject import StartError, Subject, command_for

BARE_PAIR = str(Path(__file__).with_name("bare_pair.py"))
PLAN = Plan(
    scenarios=(SCENARIOS["small"], SCENARIOS["64k"]),
    connections=(2,),
    seconds=0.2,
    rounds=2,
    settle_requests=0,
    idle_s=0.1,
    instructions=False,
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
def ports() -> Iterator[tuple[int, int]]:
    port, user_port = free_port(), free_port()
    with origin(user_port):
        yield port, user_port


def bare(name: str, port: int, user_port: int) -> Subject:
    return Subject(name, command_for(BARE_PAIR), {"QUEUE_SERVING_PORT": str(port), "USER_PORT": str(user_port)}, port)


def test_each_round_begins_with_another_subject() -> None:
    subjects = [Subject(name, [], {}, 0) for name in "abc"]
    orders = ["".join(subject.name for subject in turns(subjects, number)) for number in range(4)]
    assert orders == ["abc", "bca", "cab", "abc"]


@pytest.mark.slow
def test_a_round_measures_every_subject_and_ends_it(ports: tuple[int, int]) -> None:
    said: list[str] = []
    rounds = Rounds([bare("one", *ports), bare("two", *ports)], Driver(None), PLAN, said.append)
    rounds.run()
    loads = [(scenario, connections) for scenario in ("small", "64k") for connections in (2,)]
    expected = {
        Measure(name)
        for name in ("listening_ms", "answering_ms", "start_cpu_ms", "rss_start_mb", "rss_mb", "idle_cpu_percent")
    }
    expected |= {Measure(name, *load) for name in ("cpu_us", "req_s", "p50_ms", "p99_ms") for load in loads}
    expected |= {Measure("body_mb_cpu_s", "64k", connections) for connections in (2,)}
    for name in ("one", "two"):
        assert len(rounds.figures[name]) == 2
        for figures in rounds.figures[name]:
            assert figures.keys() == expected
            assert all(value > 0 for measure, value in figures.items() if measure.name != "idle_cpu_percent")
            assert figures[Measure("idle_cpu_percent")] < 50
            assert 1 < figures[Measure("cpu_us", "small", 2)] < 10_000
    assert all(subject.process is None for subject in rounds.subjects)
    turns_taken = [line.split(":")[0] for line in said if "small, 2 connection" in line]
    assert turns_taken == ["round 1/2, one", "round 1/2, two", "round 2/2, two", "round 2/2, one"]


@pytest.mark.slow
def test_memory_is_read_after_as_many_requests_as_the_plan_says(ports: tuple[int, int]) -> None:
    said: list[str] = []
    # Large bodies first: the rest must be small requests, or a hundred thousand would take all day.
    plan = Plan((SCENARIOS["1m"],), (2,), 0.2, 1, 2_000, 0.0, False)
    Rounds([bare("one", *ports)], Driver(None), plan, said.append).run()
    assert any("of 2000 requests before memory is read" in line for line in said)


@pytest.mark.slow
def test_a_subject_whose_requests_fail_gives_no_figures(ports: tuple[int, int]) -> None:
    port, _ = ports
    # It stands: the first health answer is a success, everything after it is not.
    program = (
        "import http.server as h\n"
        "class H(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200 if 'kube-probe' in self.headers.get('User-Agent', '') else 500)\n"
        "        self.send_header('Content-Length', '0')\n"
        "        self.end_headers()\n"
        f"h.HTTPServer(('127.0.0.1', {port}), H).serve_forever()\n"
    )
    subject = Subject("failing", ["python3", "-c", program], {}, port)
    with pytest.raises(LoadError, match=r"failing: .* errors"):
        Rounds([subject], Driver(None), PLAN, lambda text: None).run()
    assert subject.process is None


def test_an_origin_that_finds_its_port_taken_says_so() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(StartError, match="somebody else listens"),
        origin(int(taken.getsockname()[1])),
    ):
        pass

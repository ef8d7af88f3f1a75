"""Proves queueproxy.bench.subject with a real proxy (the bare pair) and with programs that are none."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from queueproxy.bench.rounds import origin
from queueproxy.bench.subject import StartError, Subject, command_for, wait_for_answer, wait_for_port

BARE_PAIR = str(Path(__file__).with_name("bare_pair.py"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
def subject() -> Iterator[Subject]:
    port, user_port = free_port(), free_port()
    environment = {"QUEUE_SERVING_PORT": str(port), "USER_PORT": str(user_port)}
    made = Subject("bare", command_for(BARE_PAIR), environment, port)
    with origin(user_port):
        yield made
        made.stop()


@pytest.mark.slow
def test_a_start_is_timed_up_to_the_first_healthy_answer(subject: Subject) -> None:
    subject.start()
    assert 0.005 < subject.listening_s <= subject.answering_s < 20


@pytest.mark.slow
def test_cpu_and_memory_are_those_of_the_process(subject: Subject) -> None:
    subject.start()
    before, exact_before = subject.cpu_s(), subject.exact_cpu_s()
    until = time.monotonic() + 10
    while subject.exact_cpu_s() < exact_before + 0.1:
        assert wait_for_answer(subject.port, until)
    assert subject.cpu_s() - before == pytest.approx(0.1, abs=0.08)
    assert 10 < subject.rss_mb() < 200


@pytest.mark.slow
def test_a_stopped_subject_is_gone_and_can_start_again(subject: Subject) -> None:
    subject.start()
    assert subject.process is not None
    first = subject.process.pid
    subject.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    subject.start()
    assert subject.process is not None
    assert subject.process.pid != first


@pytest.mark.slow
def test_the_environment_is_the_contract_and_not_this_shell(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    subject.start()
    assert subject.process is not None
    seen = Path(f"/proc/{subject.process.pid}/environ").read_text().split("\0")
    assert {entry.partition("=")[0] for entry in seen if entry} == {"PATH", "HOME", "QUEUE_SERVING_PORT", "USER_PORT"}


def test_a_proxy_that_exits_is_an_error_with_its_last_words() -> None:
    broken = Subject("broken", [sys.executable, "-c", "import sys; sys.exit('bad configuration')"], {}, free_port())
    started = time.monotonic()
    with pytest.raises(StartError, match=r"status 1\n(.|\n)*bad configuration"):
        broken.start()
    assert time.monotonic() - started < 10
    assert broken.process is None


def test_a_port_somebody_else_holds_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        late = Subject("late", [sys.executable, "-c", "pass"], {}, int(taken.getsockname()[1]))
        with pytest.raises(StartError, match="somebody else listens"):
            late.start()
    assert late.process is None


def test_a_path_that_is_no_program_is_an_error() -> None:
    with pytest.raises(StartError, match="not an executable file"):
        Subject("none", command_for("/nowhere/queue"), {}, 1).start()


def test_a_python_file_is_started_with_this_interpreter() -> None:
    assert command_for(BARE_PAIR) == [sys.executable, BARE_PAIR]
    assert command_for("/bin/true") == ["/bin/true"]


def test_waiting_for_a_port_ends_at_the_deadline() -> None:
    assert wait_for_port(free_port(), time.monotonic() + 0.05) is False
    assert wait_for_answer(free_port(), time.monotonic() + 0.05) is False


@pytest.mark.slow
def test_a_drained_subject_writes_into_a_pipe_that_is_always_read() -> None:
    port = free_port()
    # A megabyte is more than any pipe holds: unread, it would never come to serve.
    program = (
        "import http.server as h, sys\n"
        "sys.stdout.write('x' * 1_000_000)\n"
        "sys.stdout.flush()\n"
        "class H(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200)\n"
        "        self.send_header('Content-Length', '0')\n"
        "        self.end_headers()\n"
        f"h.HTTPServer(('127.0.0.1', {port}), H).serve_forever()\n"
    )
    subject = Subject("talkative", [sys.executable, "-c", program], {}, port, drained=True)
    for life in (1, 2):
        subject.start()
        subject.stop()
        assert subject.drained_bytes == life * 1_000_000

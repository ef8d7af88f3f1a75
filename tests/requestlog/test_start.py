"""How a request log begins, or does not."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from queueproxy.codec.headers import REFERER, REQUEST_KINDS
from queueproxy.config import ServingInfo
from queueproxy.log import LineWriter, Log
from queueproxy.observability import DEFAULT_REQUEST_LOG_TEMPLATE, RequestLog
from queueproxy.requestlog.recorder import RequestLog as Recorder
from queueproxy.requestlog.start import STDOUT, request_log

SERVING = ServingInfo("ns", "svc", "conf", "rev", "pod-1", "10.0.0.1")
Start = Callable[[RequestLog], Recorder | None]


class Process:
    """A process log that is read back, and what else a start needs."""

    def __init__(self) -> None:
        self.reader, self._fd = os.pipe()
        self.log = Log(LineWriter(self._fd))
        self.loop = asyncio.new_event_loop()

    def start(self, template: str) -> Recorder | None:
        wanted = RequestLog(enabled=True, template=template)
        return request_log(wanted, SERVING, self.loop, self.log, SimpleNamespace(unlogged=0))

    def said(self) -> list[dict[str, object]]:
        os.close(self._fd)
        with open(self.reader, "rb", closefd=False) as lines:
            return [json.loads(line) for line in lines]

    def close(self) -> None:
        self.loop.close()
        os.close(self.reader)


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    yield process
    process.close()


@pytest.mark.qp("QP-300", "QP-301")
def test_the_default_template_starts_a_log_without_a_word(process: Process) -> None:
    assert process.start(DEFAULT_REQUEST_LOG_TEMPLATE) is not None
    assert process.said() == []
    assert REQUEST_KINDS[b"Referer"] == REFERER  # the codec was told what to keep


@pytest.mark.qp("QP-305")
def test_an_empty_template_is_silence(process: Process) -> None:
    assert process.start("") is None
    assert process.said() == []


@pytest.mark.qp("QP-305")
def test_a_template_that_is_none_is_one_error_and_no_log(process: Process) -> None:
    assert process.start("{{.Request.Method") is None
    (event,) = process.said()
    assert event["severity"] == "ERROR"
    assert event["message"] == "Error setting up request logger. Request logs will be unavailable."
    assert event["error"] == "template: requestLog:2: unclosed action started at requestLog:1"


def test_two_logs_on_stdout_share_a_writer(process: Process) -> None:
    shared = LineWriter(STDOUT)
    process.log = Log(shared)
    started = process.start("x")
    assert started is not None and repr(shared) in repr(started)
    os.close(process._fd)

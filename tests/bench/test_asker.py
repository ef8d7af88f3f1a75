"""What one connection of the load generator makes of the answers it gets."""

import pytest

from tests.support.loaded import Server, loaded

pytestmark = pytest.mark.slow  # real time


def test_an_answer_that_is_not_a_success_is_an_error() -> None:
    load, _ = loaded(lambda: Server(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"), connections=1)
    assert load.errors == load.histogram.total > 0


def test_a_server_that_closes_politely_is_dialled_again_without_error() -> None:
    load, _ = loaded(
        lambda: Server(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", close=True), connections=1
    )
    assert load.histogram.total > 1
    assert load.errors == 0


def test_an_answer_that_is_not_http_is_an_error() -> None:
    load, _ = loaded(lambda: Server(b"SSH-2.0-x\r\n"), connections=1)
    assert load.errors > 1

"""The Date header, formatted once a second."""

import pytest

from queueproxy import clock


@pytest.mark.parametrize(
    ("seconds", "date"),
    [
        (0.0, b"Thu, 01 Jan 1970 00:00:00 GMT"),
        (784111777.9, b"Sun, 06 Nov 1994 08:49:37 GMT"),  # the example of RFC 9110 5.6.7
        (1709164799.0, b"Wed, 28 Feb 2024 23:59:59 GMT"),
        (1709164800.0, b"Thu, 29 Feb 2024 00:00:00 GMT"),
        (4102444800.0, b"Fri, 01 Jan 2100 00:00:00 GMT"),
    ],
)
def test_http_dates(seconds: float, date: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_second", -1)
    monkeypatch.setattr(clock, "wall_clock", lambda: seconds)
    assert clock.http_date() == date


def test_within_a_second_the_same_bytes_are_returned_and_after_it_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.1]
    monkeypatch.setattr(clock, "wall_clock", lambda: now[0])
    monkeypatch.setattr(clock, "_second", -1)
    first = clock.http_date()
    now[0] = 1000.9
    assert clock.http_date() is first
    now[0] = 1001.0
    assert clock.http_date() != first
    now[0] = 999.0  # the wall clock may be set back
    assert clock.http_date().endswith(b"00:16:39 GMT")

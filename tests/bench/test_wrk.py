"""Proves queueproxy.bench.wrk on reports wrk 4.1 and 4.2 wrote."""

import pytest

from queueproxy.bench.wrk import Report, UnreadableError, command, post_script, read

GOOD = """\
Running 5s test @ http://127.0.0.1:18012/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.88ms  765.79us  11.63ms   74.54%
    Req/Sec    17.18k     4.88k   30.20k    70.00%
  Latency Distribution
     50%    1.74ms
     75%    2.28ms
     90%    2.83ms
     99%    4.30ms
  85369 requests in 5.00s, 6.35MB read
Requests/sec:  17068.31
Transfer/sec:      1.27MB
"""
BAD = """\
Running 2s test @ http://127.0.0.1:1/
  1 threads and 1 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   149.00us    1.21ms  31.00ms   99.20%
    Req/Sec     9.00k     1.00k   10.00k    70.00%
  Latency Distribution
     50%   97.00us
     75%  120.00us
     90%  140.00us
     99%    1.10s
  1500 requests in 1.50m, 6.35MB read
  Socket errors: connect 1, read 20, write 300, timeout 4000
  Non-2xx or 3xx responses: 50000
Requests/sec:  17068.31
Transfer/sec:      1.27MB
"""


def test_a_clean_report_is_read() -> None:
    assert read(GOOD) == Report(requests=85369, errors=0, seconds=5.0, p50_us=1740.0, p99_us=4300.0)


def test_every_unit_is_understood_and_every_kind_of_error_counts() -> None:
    assert read(BAD) == Report(requests=1500, errors=54321, seconds=90.0, p50_us=97.0, p99_us=1_100_000.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unable to connect to 127.0.0.1:1 Connection refused\n",
        GOOD.replace("Latency Distribution", "").replace("99%", "98%"),
    ],
    ids=["empty", "refused", "no percentiles"],
)
def test_anything_else_is_an_error_and_never_a_zero(text: str) -> None:
    with pytest.raises(UnreadableError):
        read(text)


def test_the_command_line_has_one_thread_and_whole_seconds() -> None:
    assert command("wrk", "http://h/", connections=32, seconds=2.6) == [
        "wrk",
        "-t1",
        "-c32",
        "-d3s",
        "--latency",
        "http://h/",
    ]
    assert "-d1s" in command("wrk", "http://h/", connections=1, seconds=0.2)


def test_headers_come_before_the_url_each_with_its_flag() -> None:
    argv = command("wrk", "http://h/", connections=1, seconds=1, headers=("A: 1", "B: 2"))
    assert argv[-5:] == ["-H", "A: 1", "-H", "B: 2", "http://h/"]


def test_a_script_comes_before_the_url() -> None:
    assert command("wrk", "http://h/", connections=1, seconds=1, script="p.lua")[-3:] == ["-s", "p.lua", "http://h/"]
    assert 'string.rep("x", 1024)' in post_script(1024)

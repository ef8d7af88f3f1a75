"""What http.server.* and http.client.* are counted under, and that no client can make them grow."""

import pytest

from queueproxy.metrics.histogram import RECENT_MAX
from queueproxy.metrics.requests import (
    MEMO_MAX,
    OTHER,
    OVERFLOW_ASKED,
    OVERFLOW_SERVED,
    SERIES_MAX,
    WORDS_MAX,
    Asked,
    HttpCounts,
    Served,
    route_tag,
    split_host,
)


def served(counts: HttpCounts, host: bytes = b"a", status: int = 200, tag: bytes | None = None) -> None:
    counts.serve(b"GET", status, host, 1, tag, None, False, 0.01, 0, 5)


@pytest.mark.qp("QP-235")
@pytest.mark.parametrize(
    ("tag", "default", "expected"),
    [
        (None, None, "kn:disabled"),
        (b"", b"", "kn:disabled"),
        (None, b"true", "kn:default"),
        (b"", b"x", "kn:default"),
        (b"blue", b"true", "kn:undefined"),
        (b"blue", None, "blue"),
        (b"blue", b"True", "blue"),
    ],
)
def test_the_route_tag_is_upstreams(tag: bytes | None, default: bytes | None, expected: str) -> None:
    assert route_tag(tag, default) == expected


@pytest.mark.qp("QP-232")
@pytest.mark.parametrize(
    ("host", "scheme", "expected"),
    [
        (b"a.example", "http", ("a.example", 0)),
        (b"a.example:8080", "http", ("a.example", 8080)),
        (b"a.example:80", "http", ("a.example", 0)),
        (b"a.example:80", "https", ("a.example", 80)),
        (b"a.example:443", "https", ("a.example", 0)),
        (b"[::1]:8080", "http", ("::1", 8080)),
        (b"[::1]", "http", ("::1", 0)),
        (b"a:99999", "http", ("a", 0)),
        (b"", "http", ("", 0)),
    ],
)
def test_a_host_is_an_address_and_perhaps_a_port(host: bytes, scheme: str, expected: tuple[str, int]) -> None:
    assert split_host(host, scheme) == expected


@pytest.mark.qp("QP-232")
def test_a_request_counts_once_in_each_histogram() -> None:
    counts = HttpCounts()
    counts.serve(b"POST", 201, b"h:8080", 0, b"t", None, True, 0.3, 12, 6000)
    counts.serve(b"POST", 201, b"h:8080", 0, b"t", None, True, 0.01, 0, 0)
    ((labels, series),) = counts.served.items()
    assert labels == Served("POST", 201, "https", "h", 8080, "1.0", "t")
    assert (series.took.count, series.received.count, series.sent.count) == (2, 2, 2)
    assert (series.took.sum, series.received.sum, series.sent.sum) == (pytest.approx(0.31), 12, 6000)
    assert series.received.counts[0] == 1 and series.received.counts[3] == 1  # (10, 25]
    assert series.sent.counts[13] == 1  # (5000, 7500]


@pytest.mark.qp("QP-232")
def test_the_app_is_counted_only_where_it_gave_the_answer_and_nothing_grows_while_nobody_reads() -> None:
    counts = HttpCounts()
    for number in range(3 * RECENT_MAX):
        answered = 0.2 if number % 3 == 0 else -1.0
        counts.serve(b"GET", 503, b"a", 1, None, None, False, 0.3, 7, 1, answered)
        assert all(len(series.recent) < RECENT_MAX for series in counts.known.values())
    ((labels, asked),) = counts.asked.items()
    assert labels == Asked("GET", 503, "", "kn:disabled")
    assert (asked.took.count, asked.sent.count, asked.sent.sum) == (RECENT_MAX, RECENT_MAX, 7 * RECENT_MAX)
    assert asked.took.sum == pytest.approx(0.2 * RECENT_MAX)
    (series,) = counts.served.values()
    assert (series.took.count, series.received.sum) == (3 * RECENT_MAX, 21 * RECENT_MAX)


@pytest.mark.qp("QP-232")
def test_an_app_that_never_gave_the_answer_is_not_counted_at_all() -> None:
    counts = HttpCounts()
    served(counts)
    assert counts.asked == {} and len(counts.served) == 1


@pytest.mark.qp("QP-232")
def test_the_apps_side_counts_an_error_where_there_was_no_answer() -> None:
    counts = HttpCounts()
    counts.ask(b"GET", 0, "net.OpError", None, None, True, 0.1, 0)
    counts.ask(b"GET", 200, "", None, None, False, 0.1, 3)
    assert list(counts.asked) == [Asked("GET", 0, "net.OpError", "kn:disabled"), Asked("GET", 200, "", "")]
    assert [series.sent.sum for series in counts.asked.values()] == [0, 3]


@pytest.mark.qp("QP-242")
def test_the_65th_host_and_tag_are_others() -> None:
    counts = HttpCounts()
    for number in range(3 * WORDS_MAX):
        served(counts, host=b"h%d" % number)
        served(counts, tag=b"t%d" % number)
    addresses = {labels.address for labels in counts.served}
    tags = {labels.tag for labels in counts.served}
    assert len(addresses) <= WORDS_MAX + 1 and OTHER in addresses
    assert len(tags) == WORDS_MAX + 2 and OTHER in tags  # and kn:disabled
    assert sum(series.took.count for series in counts.served.values()) == 6 * WORDS_MAX


@pytest.mark.qp("QP-242")
def test_series_past_the_limit_share_one() -> None:
    counts = HttpCounts()
    for status in range(100, 100 + 40):
        for host in range(WORDS_MAX):
            served(counts, host=b"h%d" % host, status=status)
            counts.ask(b"GET", status, "", b"t%d" % host, None, True, 0.1, 0)
    assert len(counts.served) == SERIES_MAX + 1 and counts.served[OVERFLOW_SERVED].took.count == 560
    assert len(counts.asked) == SERIES_MAX + 1 and counts.asked[OVERFLOW_ASKED].took.count == 560


@pytest.mark.qp("QP-242")
def test_hosts_without_end_cost_no_memory() -> None:
    counts = HttpCounts()
    for number in range(MEMO_MAX + 500):
        served(counts, host=b"h%d" % number)
    assert len(counts.known) == MEMO_MAX and len(counts.served) == WORDS_MAX + 1
    assert counts.served[Served("GET", 200, "http", OTHER, 0, "1.1", "kn:disabled")].took.count > 500


def test_a_client_cannot_pretend_to_a_fourth_word_of_ours() -> None:
    counts = HttpCounts()
    for number in range(2 * WORDS_MAX):
        served(counts, tag=b"kn:%d" % number)
    assert len({labels.tag for labels in counts.served}) == WORDS_MAX + 1


@pytest.mark.qp("QP-232")
def test_an_app_that_answered_with_the_same_status_is_counted_in_one_go() -> None:
    counts = HttpCounts()
    for received in (0, 12):
        counts.serve(b"GET", 200, b"a", 1, b"blue", None, False, 0.3, received, 5, 0.1)
    counts.ask(b"GET", 200, "", b"blue", None, True, 0.1, 3)
    ((labels, series),) = counts.asked.items()
    assert labels == Asked("GET", 200, "", "blue")
    assert (series.took.count, series.took.sum) == (3, pytest.approx(0.3))
    assert (series.sent.count, series.sent.sum, series.sent.counts[0]) == (3, 15, 1)

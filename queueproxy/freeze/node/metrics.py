"""Serves the text exposition of the freezer with prometheus_client, from plain integers read at scrape time (FZ-100).

Every family is always there, so that dashboards find the names on the first day, and no label names a pod: a node has
250 of them, and `GET /v1/pods` is for looking at one. docs/freezer.md lists what each means.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import inf

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from queueproxy.buckets import Histogram
from queueproxy.clock import monotonic
from queueproxy.freeze.node.actions import Kind, Phase
from queueproxy.freeze.node.book import Book
from queueproxy.freeze.node.ledger import Ledger
from queueproxy.freeze.node.limits import Limits
from queueproxy.freeze.node.pods import Pods
from queueproxy.freeze.node.port import Port
from queueproxy.freeze.node.review import Reviewer
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import RUNG_WORDS, WANTED_WORDS

__all__ = ["CONTENT_TYPE", "FreezerCollector", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def _counter(name: str, help_text: str, label: str, counts: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family


def _timing(family: HistogramMetricFamily, value: str, timing: Histogram) -> None:
    buckets = [("+Inf" if bound == inf else repr(bound), count) for bound, count in timing.cumulative()]
    family.add_metric([value], buckets, timing.sum)


class FreezerCollector(Collector):
    """Reads the parts of one freezer when scraped."""

    def __init__(self, ledger: Ledger, book: Book, port: Port, limits: Limits, reviewer: Reviewer, pods: Pods) -> None:
        self._ledger = ledger
        self._book = book
        self._port = port
        self._limits = limits
        self._reviewer = reviewer
        self._pods = pods

    def collect(self) -> Iterable[Metric]:
        yield from self._sleep()
        yield from self._moves()
        yield from self._calls()
        yield from self._cluster()

    def _sleep(self) -> Iterable[Metric]:
        book, entries = self._book, list(self._ledger.pods.values())
        states = Counter(RUNG_WORDS[entry.rung] for entry in entries)
        pods = GaugeMetricFamily("freezer_pods", "Pods by the deepest rung they may be on", labels=["state"])
        for rung in Rung:
            pods.add_metric([RUNG_WORDS[rung]], states[RUNG_WORDS[rung]])
        yield pods
        stuck = sum(entry.phase is Phase.STUCK for entry in entries)
        yield GaugeMetricFamily("freezer_stuck_pods", "Pods that should run and cannot be thawed", value=stuck)
        asleep = {RUNG_WORDS[rung]: book.asleep(rung) for rung in Rung if rung}
        yield _counter("freezer_asleep_seconds", "Time pods have slept, by rung, ended sleeps", "state", asleep)
        cpu = {RUNG_WORDS[rung]: book.cpu(rung) for rung in Rung}
        yield _counter("freezer_cpu_seconds", "CPU that pods used on each rung", "state", cpu)
        yield CounterMetricFamily("freezer_cpu_saved_seconds", "CPU that sleep saved, an estimate", value=book.saved())
        draining = self._ledger.is_draining
        yield GaugeMetricFamily("freezer_draining", "1 while the freezer is stopping", value=float(draining))

    def _moves(self) -> Iterable[Metric]:
        book = self._book
        moves = CounterMetricFamily("freezer_moves", "Moves to a rung and how they ended", labels=["to", "outcome"])
        for labels, count in sorted(book.moves.items()):
            moves.add_metric(list(labels), count)
        yield moves
        took = HistogramMetricFamily(
            "freezer_move_duration_seconds", "From the first write to the kernel's last confirmation", labels=["to"]
        )
        for rung, timing in book.took.items():
            _timing(took, RUNG_WORDS[rung], timing)
        yield took
        yield _counter("freezer_thaws", "Pods that ran again, by cause", "cause", book.thaws)
        kinds = {kind.value: book.happenings[kind.value] for kind in Kind}
        yield _counter("freezer_events", "Events by kind", "kind", kinds)

    def _calls(self) -> Iterable[Metric]:
        port = self._port
        calls = CounterMetricFamily("freezer_calls", "Calls of sidecars", labels=["call", "status"])
        for (kind, status), count in sorted(port.answers.items()):
            calls.add_metric([kind, str(status)], count)
        yield calls
        answered = HistogramMetricFamily(
            "freezer_answer_duration_seconds", "From a whole wish to its answer, kernel included", labels=["wanted"]
        )
        for wanted, timing in self._book.answered.items():
            _timing(answered, WANTED_WORDS[wanted], timing)
        yield answered
        connections = GaugeMetricFamily("freezer_connections", "Open connections of sidecars", labels=["kind"])
        connections.add_metric(["known"], len(port.known))
        connections.add_metric(["stranger"], len(port.strangers))
        yield connections
        yield _counter("freezer_cut_off", "Connections ended for misbehaving", "reason", port.cut_off)
        yield _counter("freezer_rate_limited", "Calls refused by a rate limit", "limit", self._limits.refused)
        takeovers = port.sessions.takeovers
        yield CounterMetricFamily("freezer_session_takeovers", "Sessions that passed on", value=takeovers)
        yield CounterMetricFamily("freezer_internal_errors", "Calls that failed inside the freezer", value=port.errors)

    def _cluster(self) -> Iterable[Metric]:
        reviewer, pods = self._reviewer, self._pods
        yield CounterMetricFamily("freezer_token_reviews", "TokenReviews made", value=reviewer.reviews)
        yield CounterMetricFamily("freezer_token_review_failures", "Of these unanswered", value=reviewer.failures)
        yield CounterMetricFamily("freezer_pod_lists", "Lists of this node's pods", value=pods.lists)
        yield CounterMetricFamily("freezer_watches", "Watches of this node's pods that were opened", value=pods.watches)
        yield CounterMetricFamily("freezer_watch_events", "Changes of pods that the watch told of", value=pods.events)
        yield CounterMetricFamily("freezer_watch_failures", "Failures of the pod watch", value=pods.failures)
        stale = pods.stale_for(monotonic())
        yield GaugeMetricFamily("freezer_watch_stale_seconds", "Since the pod watch was lost", value=stale)


def exposition(collector: FreezerCollector) -> Callable[[], bytes]:
    """A function that renders the page, this process's own figures included."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    ProcessCollector(registry=registry)
    return lambda: bytes(generate_latest(registry))

"""Which hooks an extension has, and what is counted and told of those that break."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from queueproxy.extensions import Extension, Outcome, Request
from queueproxy.proxy.chain import Chain, Link, reason
from tests.support.wires import Log


class Counts:
    def __init__(self) -> None:
        self.extension_failures: dict[tuple[str, str], int] = {}


class Inherits(Extension):
    def finished(self, request: Request, outcome: Outcome) -> None: ...


class Unrelated:
    """An extension by its looks."""

    def request(self, request: Request) -> None: ...

    response: Callable[..., None] | None = None


@pytest.mark.parametrize(
    ("extension", "hooks"),
    [(Inherits(), "<Link x ['finished']>"), (Unrelated(), "<Link x ['request']>"), (Extension, "<Link x []>")],
    ids=["inherits", "looks like one", "has none"],
)
def test_only_hooks_that_are_defined_are_called(extension: object, hooks: str) -> None:
    if extension is Extension:
        extension = type("Empty", (Extension,), {})()
    assert repr(Link("x", extension)) == hooks


def test_a_chain_knows_who_wants_to_see_answers_and_outcomes_the_outermost_last() -> None:
    a, b, c = Link("a", Inherits()), Link("b", Unrelated()), Link("c", Inherits())
    chain = Chain([a, b, c], Counts(), Log())
    assert (chain.answers, chain.ends, repr(chain)) == ([], [c, a], "<Chain ['a', 'b', 'c']>")


def test_all_are_closed_the_innermost_first_though_one_breaks() -> None:
    closed: list[str] = []

    def link(name: str, error: BaseException | None = None) -> Link:
        def close() -> None:
            closed.append(name)
            if error is not None:
                raise error

        return Link(name, type("Closes", (), {"close": staticmethod(close)})())

    log, counts = Log(), Counts()
    Chain([link("a"), link("b", SystemExit(1)), link("c", ValueError("x"))], counts, log).close()
    assert closed == ["c", "b", "a"]
    assert counts.extension_failures == {("c", "close"): 1, ("b", "close"): 1}
    assert [(level, fields["extension"], fields["error"]) for level, _, fields in log.lines] == [
        ("error", "c", "ValueError: x"), ("error", "b", "SystemExit: 1"),
    ]  # fmt: skip


def test_each_hook_is_told_of_once() -> None:
    log, counts = Log(), Counts()
    link = Link("a", Inherits())
    chain = Chain([link], counts, log)
    for hook in ("request", "response", "request", "request"):
        chain.blame(link, hook, ValueError())
    assert [(message, fields["hook"]) for _, message, fields in log.lines] == [
        ("Extension failed", "request"), ("Extension failed", "response"),
    ]  # fmt: skip
    assert counts.extension_failures == {("a", "finished"): 0, ("a", "request"): 3, ("a", "response"): 1}


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "text"),
    [(ValueError("a\nb"), "ValueError: a\nb"), (ValueError(), "ValueError"), (Mute(), "Mute")],
    ids=["text", "none", "broken"],
)
def test_a_reason_is_kind_and_text(error: BaseException, text: str) -> None:
    assert reason(error) == text

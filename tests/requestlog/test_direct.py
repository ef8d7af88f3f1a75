"""Templates that only show fields: written by one expression, which must mean what the compiler's closures mean."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.observability import DEFAULT_REQUEST_LOG_TEMPLATE
from queueproxy.requestlog import direct as module
from queueproxy.requestlog.compiler import made
from queueproxy.requestlog.direct import KEPT, LONGEST, direct, of_input
from queueproxy.requestlog.functions import FUNCTIONS
from queueproxy.requestlog.inputs import SHOWN
from queueproxy.requestlog.parser import parse
from tests.support.request_log import GET, REVISION, input_of, with_headers

FIELDS = [".".join(("", *path)) for path in SHOWN]
ACTIONS = [
    form.format(field)
    for field in FIELDS
    for form in ("{{{{{}}}}}", "{{{{js {}}}}}", "{{{{{} | js}}}}", "{{{{{} | html | js}}}}", "{{{{js {} | urlquery}}}}")
]


def line_of(template: str, known: bool = True) -> module.Line | None:
    return direct(parse(template, FUNCTIONS)["requestLog"], REVISION if known else None)


def both(template: str, raw: bytes = GET, **facts: Any) -> tuple[bytes, bytes]:
    """By the expression and by the closures."""
    line, program = made(template, REVISION)
    assert line is not None, template
    asked = input_of(raw, **facts)
    return of_input(line)(asked), program(asked)


@pytest.mark.qp("QP-301", "QP-302")
def test_the_default_template_is_one_expression() -> None:
    line, program = made(DEFAULT_REQUEST_LOG_TEMPLATE + "\n", REVISION)
    assert line is not None
    asked = input_of()
    assert of_input(line)(asked) == program(asked)
    assert of_input(line)(asked).startswith(b'{"httpRequest": {"requestMethod": ')


@pytest.mark.qp("QP-302")
@pytest.mark.parametrize(
    "action", [a for a in ACTIONS if ("Code" not in a and "Size" not in a and "Length" not in a) or a.count(" ") == 0]
)
def test_each_field_is_written_as_the_compiler_writes_it(action: str) -> None:
    assert len(set(both(f"<%{action}%>"))) == 1


requests = st.builds(
    lambda target, agent, referer, trace: with_headers(
        f"User-Agent: {agent}", f"Referer: {referer}", f"traceparent: {trace}", target=f"/{target}"
    ),
    *[st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40) for _ in range(4)],
)


@pytest.mark.qp("QP-301")
@given(st.lists(requests.filter(lambda raw: b"%" not in raw and b" HTTP" in raw), max_size=4), st.floats(0, 1e7))
def test_the_default_line_is_the_same_either_way(raws: list[bytes], took: float) -> None:
    line, program = made(DEFAULT_REQUEST_LOG_TEMPLATE, REVISION)
    assert line is not None
    for raw in raws:
        asked = input_of(raw, took=took)
        assert of_input(line)(asked) == program(asked)


@pytest.mark.parametrize(
    "template",
    [
        "{{if .TraceID}}x{{end}}", "{{.Request.Header}}", "{{printf `%d` .Response.Code}}", "{{js .Response.Code}}",
        "{{$x := .TraceID}}", "{{.ThawWait}}", "{{.Revision}}", "{{.Request.TLS}}", "{{js .TraceID .TraceID}}",
        "{{.TraceID | js `x`}}", "{{js (js .TraceID)}}", "{{.Request}}", "{{len .TraceID}}", "{{`__import__`}}",
    ],
)  # fmt: skip
def test_whatever_does_more_is_the_compilers(template: str) -> None:
    assert line_of(template) is None


def test_without_a_revision_its_names_are_the_compilers_too() -> None:
    assert line_of("{{.Revision.Name}}", known=False) is None
    assert line_of("{{.TraceID}}", known=False) is not None


def test_text_is_data_and_never_python() -> None:
    text = "') or __import__('os').abort() or (' %b %(x)s {0} \\ \x00"
    assert both(text + "{{.Request.Method}}") == ((text + "GET").encode(),) * 2


def test_escaped_user_agents_are_kept_up_to_a_bound() -> None:
    for n in (*range(KEPT + 5), 0, 1, KEPT):
        raw = with_headers(f"User-Agent: <{n}>")
        assert both("{{js .Request.UserAgent}}", raw)[0] == f"\\u003C{n}\\u003E".encode()
    kept: dict[bytes, bytes] = {}
    learn = module._learner(kept)
    for n in range(3 * KEPT):
        assert learn(b"%d" % n) == b"%d" % n
    assert learn(b"x" * (LONGEST + 1)) == b"x" * (LONGEST + 1)
    assert len(kept) <= KEPT and max(map(len, kept)) <= LONGEST
    assert both("{{js .Request.UserAgent}}|", with_headers()) == (b"|", b"|")  # one that nobody sent

"""What templates write: golden cases made by Go, and the bounds that are ours."""

from collections.abc import Callable
from typing import Any

import pytest

from queueproxy.observability import DEFAULT_REQUEST_LOG_TEMPLATE
from queueproxy.requestlog import compiler
from queueproxy.requestlog.compiler import compiled
from queueproxy.requestlog.inputs import SHOWN, Input
from queueproxy.requestlog.parser import BadTemplate
from queueproxy.requestlog.values import ExecutionError
from tests.support.request_log import GET, GOLDEN, REVISION, input_of, line, with_headers

CASES = GOLDEN["cases"]


@pytest.mark.qp("QP-301", "QP-302", "QP-303", "QP-305", "QP-306")
@pytest.mark.parametrize("case", CASES, ids=[f"{case['name']} ({case['head']})" for case in CASES])
def test_a_line_is_what_go_writes(case: dict[str, Any]) -> None:
    raw = GOLDEN["heads"][case["head"]].encode()
    if case["output"] is None:
        with pytest.raises(ExecutionError):
            line(case["template"], raw)
    else:
        assert line(case["template"], raw).decode() == case["output"]


@pytest.mark.qp("QP-305")
@pytest.mark.parametrize("case", GOLDEN["refused"], ids=lambda case: case["template"])
def test_a_bad_template_is_refused_in_gos_words(case: dict[str, str]) -> None:
    with pytest.raises(BadTemplate) as refused:
        compiled(case["template"])
    assert str(refused.value) == case["error"]


@pytest.mark.parametrize("path", SHOWN, ids=".".join)
@pytest.mark.parametrize("head", GOLDEN["heads"])
@pytest.mark.parametrize("around", ["{{%s}}", "{{%s | print}}", "{{print %s}}"], ids=["alone", "piped", "argument"])
def test_a_short_cut_means_what_it_cuts_short(path: tuple[str, ...], head: str, around: str) -> None:
    raw = GOLDEN["heads"][head].encode()
    short, long = around % ("." + ".".join(path)), around % ("$." + ".".join(path))
    assert line(short, raw) == line(long, raw) == line("{{with 1}}" + long + "{{end}}", raw)


@pytest.mark.parametrize("took", [0.0, 1e-9, 4.487e-06, 9.99e-05, 0.0001, 0.002674909, 1.0, 12.5, 3600.25, 1e6, 1.5e7])
def test_a_latency_is_written_the_same_on_both_ways(took: float) -> None:
    short, long = line("{{.Response.Latency}}", took=took), line("{{$.Response.Latency}}", took=took)
    assert short == long and float(short) == took


@pytest.mark.parametrize("escape", ["js", "html", "urlquery"])
@pytest.mark.parametrize("of", [".Request.RequestURI", ".Request.UserAgent", '.Request.Header.Get "Referer"'])
def test_an_escaped_short_cut_is_escaped(escape: str, of: str) -> None:
    raw = with_headers("User-Agent: <a'b>", "Referer: x&y", target="/a=b<c>")
    long = line(f"{{{{{escape} (print ($.{of[1:]}))}}}}", raw)
    assert line(f"{{{{{escape} ({of})}}}}", raw) == line(f"{{{{{of} | {escape}}}}}", raw) == long
    assert long != line(f"{{{{{of}}}}}", raw)


def test_what_never_changes_is_made_text_once() -> None:
    template = "{{.Revision.Name}} {{js .Revision.PodIP}} {{.Request.Method}} 100%"
    known: Callable[[Input], bytes] = compiled(template, REVISION)
    assert known(input_of()) == compiled(template)(input_of()) == b"rev 10.0.0.1 GET 100%"


@pytest.mark.qp("QP-301", "QP-312")
def test_an_apostrophe_does_not_break_the_line() -> None:
    raw = with_headers("User-Agent: it's", target="/a'b")
    assert b'"requestUrl": "/a\\u0027b"' in line(DEFAULT_REQUEST_LOG_TEMPLATE, raw)


@pytest.mark.fz("FZ-101")
def test_a_thaw_wait_is_there_for_those_who_ask() -> None:
    assert line("{{.ThawWait}} {{if .ThawWait}}woken{{end}}", thaw_wait=0.0005) == b"0.0005 woken"
    assert line("{{.ThawWait}}") == b"0"


def test_a_loop_over_a_number_is_bounded() -> None:
    assert line(f"{{{{range {compiler.LOOPS}}}}}x{{{{end}}}}") == b"x" * compiler.LOOPS
    with pytest.raises(ExecutionError):
        line(f"{{{{range {compiler.LOOPS + 1}}}}}x{{{{end}}}}")


def test_a_template_that_calls_itself_comes_to_an_end() -> None:
    with pytest.raises(ExecutionError):
        line('{{define "t"}}{{template "t"}}{{end}}{{template "t"}}')


@pytest.mark.parametrize("deep", ["(" * 5000 + "1" + ")" * 5000, "if 1}}" * 5000 + "{{"], ids=["parens", "blocks"])
def test_a_deep_template_is_refused(deep: str) -> None:
    with pytest.raises(BadTemplate):
        compiled("{{" + deep.replace("if 1}}if", "if 1}}{{if") + "}}")


def test_an_error_leaves_nothing_behind_for_the_next_line() -> None:
    render = compiled('{{$x := 1}}{{range .Request.Header.Values "X"}}{{index . 5}}{{end}}{{$x}}')
    with pytest.raises(ExecutionError):
        render(input_of(with_headers("X: a")))
    assert render(input_of(GET)) == b"1"

"""What a run tells, in each of its forms."""

import json

import pytest

from queueproxy.local.report import Report, seconds, status_text, summary_of
from queueproxy.local.tally import Tally


def told() -> Tally:
    tally = Tally("running", 0.0)
    tally.idled(0.02, 1.0)
    tally.moved("frozen", 10.0)
    tally.fell_asleep()
    tally.woke(0.0004)
    tally.moved("running", 100.0)
    return tally


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.9, "12 s"), (200.0, "3 m 20 s"), (7500.0, "2 h 5 m")],
    ids=str,
)
def test_times_are_told_as_people_say_them(value: float, text: str) -> None:
    assert seconds(value) == text


def test_the_status_line_tells_state_requests_wakes_sleep_and_saving() -> None:
    text = status_text(told(), 120.0, in_flight=2, since="12:00:00", note="")
    assert text == (
        " queueproxy: awake since 12:00:00 · 2 in flight · 1 wakes, p50 0.40 ms · asleep 1 m 30 s (75%)"
        " · CPU saved ≈ 1.8 s "
    )


def test_a_saving_that_was_never_measured_is_not_made_up() -> None:
    tally = Tally("frozen", 0.0)
    assert "CPU saved ≈ ?" in status_text(tally, 5.0, in_flight=0, since="12:00:00", note="")
    assert summary_of(tally, 5.0, requests=0, exit_status=0, mechanism="signal")["cpu_saved_s_estimate"] is None


@pytest.mark.fz("FZ-102", "FZ-104")
def test_machines_get_one_object_per_line(capfd: pytest.CaptureFixture[str]) -> None:
    report = Report(as_json=True, verbose=False, terminal=False)
    report.event("ready", "the app is ready", after_s=0.2)
    report.state("running", "frozen", "idle for 1 s", 3, 0.00021, report.began_at + 1.5)
    report.summary(summary_of(told(), 120.0, requests=7, exit_status=0, mechanism="cgroup2"))
    report.close()
    output = capfd.readouterr()
    ready, state, summary = map(json.loads, output.out.splitlines())
    assert (ready["event"], ready["after_s"]) == ("ready", 0.2)
    assert state == {
        "event": "state",
        "at_s": 1.5,
        "from": "running",
        "to": "frozen",
        "reason": "idle for 1 s",
        "generation": 3,
        "took_us": 210,
    }
    assert (summary["wakes"], summary["asleep_s"], summary["cpu_saved_s_estimate"]) == (1, 90.0, 1.8)
    assert output.err == ""


def test_people_get_lines_on_stderr_and_nothing_on_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    report = Report(as_json=False, verbose=False, terminal=False)
    report.state("running", "frozen", "idle for 1 s", 3, 0.00021, report.began_at + 1.5)
    report.problem("the guardian died")
    report.summary(summary_of(told(), 120.0, requests=7, exit_status=0, mechanism="cgroup2"))
    report.close()
    output = capfd.readouterr()
    assert output.out == ""
    asleep, problem, summary = output.err.splitlines()
    assert asleep.endswith('asleep reason="idle for 1 s" generation=3 took=0.21ms')
    assert "warning" in problem and "the guardian died" in problem
    assert "served 7 requests in 2 m 0 s, asleep 1 m 30 s (75%), 1 wakes (p50 0.40 ms, p99 0.40 ms)" in summary


def test_on_a_terminal_the_status_line_tells_the_state_instead(capfd: pytest.CaptureFixture[str]) -> None:
    report = Report(as_json=False, verbose=False, terminal=True)
    drawn: list[str] = []
    report.changed = lambda: drawn.append("drawn")
    report.state("running", "frozen", "idle for 1 s", 3, 0.00021, report.began_at + 1.5)
    report.close()
    assert (capfd.readouterr().err, drawn) == ("", ["drawn"])

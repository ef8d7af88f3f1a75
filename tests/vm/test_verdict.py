"""What counts as proven: passed where it must, skipped only where it may."""

import pytest

from tests.vm.verdict import MAY_SKIP, judge

MUST = {"tests.test_a": 2}
MAY = ("no v1",)
PASSED = '<testcase classname="tests.test_a" name="{}"/>'
SKIPPED = (
    '<testcase classname="tests.test_a" name="s"><skipped type="pytest.skip" message="{}">where</skipped></testcase>'
)


def report(*cases: str) -> str:
    return f'<?xml version="1.0"?><testsuites><testsuite name="pytest">{"".join(cases)}</testsuite></testsuites>'


GOOD = (PASSED.format("one"), PASSED.format("two"))


def test_enough_passed_and_no_fault_is_proven() -> None:
    verdict = judge(report(*GOOD, SKIPPED.format("no v1"), SKIPPED.format("no v1")), "", MUST, MAY)
    assert (verdict.passed, verdict.skipped, verdict.faults) == (2, {"no v1": 2}, [])
    assert str(verdict) == "2 tests passed on v2 alone\n2 skipped: no v1"


@pytest.mark.parametrize(
    ("cases", "fault"),
    [
        pytest.param(
            [*GOOD, '<testcase classname="t" name="f"><failure message="one&#10;two"/></testcase>'],
            "t.f: one",
            id="failed",
        ),
        pytest.param([*GOOD, '<testcase classname="t" name="e"><error/></testcase>'], "t.e: ?", id="error"),
        pytest.param(
            [*GOOD, SKIPPED.format("no cpu controller on v2")],
            "tests.test_a.s: skipped: no cpu controller on v2",
            id="skipped for another reason",
        ),
        pytest.param([PASSED.format("one")], "1 tests of tests.test_a passed, not 2", id="too few"),
    ],
)
def test_anything_else_is_a_fault(cases: list[str], fault: str) -> None:
    verdict = judge(report(*cases), "", MUST, MAY)
    assert verdict.faults == [fault]
    assert f"FAULT: {fault}" in str(verdict)


def test_nothing_is_never_enough() -> None:
    assert judge(report(), "", {}, MAY).faults == ["no test passed"]
    assert judge(report(SKIPPED.format("no v1")), "", {}, MAY).faults == ["no test passed"]


FAILED = '<testcase classname="tests.test_a" name="{}"><failure message="too slow"/></testcase>'


def test_what_passes_at_the_second_try_counts_and_is_told() -> None:
    verdict = judge(report(PASSED.format("one"), FAILED.format("two")), report(PASSED.format("two")), MUST, MAY)
    assert (verdict.passed, verdict.faults, verdict.again) == (2, [], ["tests.test_a.two"])
    assert "at the second try: tests.test_a.two" in str(verdict)


def test_what_fails_twice_or_is_not_tried_again_is_a_fault() -> None:
    first = report(*GOOD, FAILED.format("three"))
    for second in (report(FAILED.format("three")), report(PASSED.format("other")), report(SKIPPED.format("no v1"))):
        assert judge(first, second, MUST, MAY).faults == ["tests.test_a.three: too slow"]


def test_many_second_tries_are_no_accident() -> None:
    names = ["a", "b", "c", "d"]
    verdict = judge(report(*GOOD, *map(FAILED.format, names)), report(*map(PASSED.format, names)), MUST, MAY)
    assert verdict.faults == ["4 tests passed at the second try only"]


def test_a_failing_teardown_is_a_failure_whatever_went_before() -> None:
    twice = (
        PASSED.format("three")
        + '<testcase classname="tests.test_a" name="three"><error message="left behind"/></testcase>'
    )
    assert judge(report(*GOOD, twice), "", MUST, MAY).faults == ["tests.test_a.three: left behind"]


@pytest.mark.parametrize("text", ["", "<testsuites><testcase", "no report"])
def test_a_report_that_ends_early_is_a_fault(text: str) -> None:
    assert judge(text, "", MUST, MAY).faults[0].startswith("the report cannot be read")


def test_the_cpu_controller_may_not_be_missing() -> None:
    assert not [reason for reason in MAY_SKIP if "no cpu controller" in reason]

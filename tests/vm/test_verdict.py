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
    verdict = judge(report(*GOOD, SKIPPED.format("no v1"), SKIPPED.format("no v1")), MUST, MAY)
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
    verdict = judge(report(*cases), MUST, MAY)
    assert verdict.faults == [fault]
    assert f"FAULT: {fault}" in str(verdict)


def test_nothing_is_never_enough() -> None:
    assert judge(report(), {}, MAY).faults == ["no test passed"]
    assert judge(report(SKIPPED.format("no v1")), {}, MAY).faults == ["no test passed"]


@pytest.mark.parametrize("text", ["", "<testsuites><testcase", "no report"])
def test_a_report_that_ends_early_is_a_fault(text: str) -> None:
    assert judge(text, MUST, MAY).faults[0].startswith("the report cannot be read")


def test_the_cpu_controller_may_not_be_missing() -> None:
    assert not [reason for reason in MAY_SKIP if "no cpu controller" in reason]

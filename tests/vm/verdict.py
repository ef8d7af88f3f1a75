"""Decides from the report of the machine's tests whether they prove what the machine was started for.

An exit status of 0 is not enough: a test that skips is no proof, and here the v2 tests must not skip.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple
from xml.etree import ElementTree

__all__ = ["MAY_SKIP", "MUST_PASS", "Verdict", "judge"]

# Start of a test's name -> how many at least. Each of these is why there is a machine at all.
MUST_PASS: Mapping[str, int] = {
    "tests.freeze.node.test_throttle.TestRealV2": 5,
    "tests.freeze.node.test_cgroup.TestRealV2": 30,
    "tests.vm.test_v2_only": 45,
}
# What a kernel with v2 alone, Debian's, cannot show; anything else that is skipped is a fault.
MAY_SKIP: Collection[str] = (
    "NOT PROVEN HERE: needs root and a mounted freezer cgroup hierarchy",
    "NOT PROVEN HERE: needs root and a mounted cpu cgroup hierarchy",
    "NOT PROVEN HERE: needs root and a mounted cpuacct cgroup hierarchy",
    "NOT PROVEN HERE: this kernel has no frozen_usec",
)


class Verdict(NamedTuple):
    """`faults` empty: proven."""

    passed: int
    skipped: Mapping[str, int]
    faults: list[str]

    def __str__(self) -> str:
        lines = [f"{self.passed} tests passed on v2 alone"]
        lines += [f"{count} skipped: {reason}" for reason, count in sorted(self.skipped.items())]
        return "\n".join([*lines, *(f"FAULT: {fault}" for fault in self.faults)])


def judge(report: str, must_pass: Mapping[str, int] = MUST_PASS, may_skip: Collection[str] = MAY_SKIP) -> Verdict:
    """Of pytest's JUnit report."""
    try:
        cases = list(ElementTree.fromstring(report).iter("testcase"))
    except ElementTree.ParseError as error:
        return Verdict(0, {}, [f"the report cannot be read: {error}"])
    passed: list[str] = []
    skipped: Counter[str] = Counter()
    faults: list[str] = []
    for case in cases:
        name = f"{case.get('classname')}.{case.get('name')}"
        marks = {mark.tag: mark for mark in case if mark.tag in ("failure", "error", "skipped")}
        wrong = marks.get("failure", marks.get("error"))
        if wrong is not None:  # an element without children is false
            faults.append(f"{name}: {(wrong.get('message') or '?').splitlines()[0]}")
        elif "skipped" in marks:
            reason = marks["skipped"].get("message") or "?"
            skipped[reason] += 1
            if reason not in may_skip:
                faults.append(f"{name}: skipped: {reason}")
        else:
            passed.append(name)
    if not passed:
        faults.append("no test passed")
    for start, least in must_pass.items():
        if (found := sum(name.startswith(start) for name in passed)) < least:
            faults.append(f"{found} tests of {start} passed, not {least}")
    return Verdict(len(passed), skipped, faults)

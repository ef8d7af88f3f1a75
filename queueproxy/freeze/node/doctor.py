"""Runs `queueproxy doctor`: says what this node can do, what that means, and what to do about it."""

from __future__ import annotations

import json
from typing import Final, TextIO

from queueproxy.freeze.node.fitness import Finding, Node, Verdict, examine

__all__ = ["doctor"]

FIT, NOT_FIT, COULD_NOT_LOOK = 0, 1, 2
_MARKS: Final = {Verdict.GOOD: "ok", Verdict.POOR: "poor", Verdict.BAD: "BAD", Verdict.UNKNOWN: "?"}
_WORDS: Final = {FIT: "fit", NOT_FIT: "not fit", COULD_NOT_LOOK: "could not look"}
# Without these nothing at all can be said.
_ESSENTIAL: Final = frozenset({"cgroups", "kubepods", "freezer", "permission"})


def doctor(node: Node, out: TextIO, *, as_json: bool) -> int:
    """0 fit, 1 not fit, 2 could not look."""
    findings = examine(node)
    code = _code(findings)
    if as_json:
        said = [{**finding._asdict(), "verdict": finding.verdict.name.lower()} for finding in findings]
        out.write(json.dumps({"verdict": _WORDS[code], "findings": said}) + "\n")
        return code
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        out.write(f"{_MARKS[finding.verdict]:<5} {finding.what:<{width}}  {finding.found}\n")
        out.write(f"{'':<5} {'':<{width}}  {finding.means}\n")
        if finding.todo:
            out.write(f"{'':<5} {'':<{width}}  -> {finding.todo}\n")
    out.write(f"\nthis node is {_WORDS[code]} for freezing\n" if code != COULD_NOT_LOOK else "\ncould not look\n")
    return code


def _code(findings: list[Finding]) -> int:
    if any(finding.verdict is Verdict.BAD for finding in findings):
        return NOT_FIT
    if any(finding.verdict is Verdict.UNKNOWN and finding.what in _ESSENTIAL for finding in findings):
        return COULD_NOT_LOOK
    return FIT

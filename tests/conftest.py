"""Decides what cannot run on this machine, and says so at the end of the run instead of hiding it among the dots."""

import os
from collections import Counter

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    needs_root = pytest.mark.skip(reason="needs root (cgroups, network namespaces)")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(needs_root)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        # A skipped report carries (file, line, "Skipped: reason").
        longrepr = getattr(report, "longrepr", None)
        reasons[str(longrepr[2] if isinstance(longrepr, tuple) else longrepr).removeprefix("Skipped: ")] += 1
    if reasons:
        terminalreporter.section("not proven on this machine", yellow=True)
        for reason, count in sorted(reasons.items()):
            terminalreporter.line(f"{count:4} {'test' if count == 1 else 'tests'}: {reason}")

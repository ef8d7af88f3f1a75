"""Autobahn|Testsuite's fuzzing client: every verdict through the sidecar is the verdict without it (RFC 6455, 7692)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support import autobahn
from tests.support.judges import MIXED_APP, Judged, judged
from tests.support.sidecar import REQUEST, USER

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.xdist_group("autobahn"),
    # The first run compiles the suite; a fresh environment does so once.
    pytest.mark.timeout(autobahn.BUILD_WITHIN * 2),
]

# Sections: 1 framing, 2 pings, 3 reserved bits, 4 opcodes, 5 fragmentation, 6 UTF-8, 7 closing, 9 limits and
# performance, 10 autofragmentation, 12 and 13 compression. Sixty cases that take no time; from every section some.
QUICK = (
    "1.1.1", "1.1.2", "1.1.6", "1.1.8", "1.2.1", "1.2.5", "1.2.8",
    "2.1", "2.3", "2.5", "2.6", "2.9", "2.10", "2.11",
    "3.1", "3.2", "3.3", "3.4", "3.5", "3.6", "3.7",
    "4.1.1", "4.1.3", "4.1.5", "4.2.2", "4.2.4",
    "5.1", "5.3", "5.6", "5.8", "5.9", "5.12", "5.15", "5.18", "5.19",
    "6.1.1", "6.2.1", "6.2.3", "6.3.1", "6.5.1", "6.6.5", "6.12.3", "6.21.2",
    "7.1.1", "7.1.2", "7.1.4", "7.1.5", "7.3.1", "7.3.2", "7.5.1", "7.7.1", "7.7.9", "7.9.1", "7.13.1",
    "9.1.1", "9.2.1", "9.7.1", "10.1.1",
    "12.1.1", "12.2.1", "13.1.1", "13.3.1",
)  # fmt: skip
QUICK_WITHIN = 60.0
# All cases, in groups: one that takes too long leaves the verdicts of the others. Most of the time is compression.
GROUPS = {
    "protocol": ("1.*", "2.*", "3.*", "4.*", "5.*", "7.*", "10.*"),
    "utf-8": ("6.*",),
    "limits": ("9.*",),
    **{f"compression 12.{part}": (f"12.{part}.*",) for part in range(1, 6)},
    **{f"compression 13.{part}": (f"13.{part}.*",) for part in range(1, 8)},
}
GROUP_WITHIN = 1500.0  # seconds; on a busy machine all at once took longer than that
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"}
FAULTS_OF_THE_APP = {"7.9.5"}  # aiohttp echoes close code 1006, which nobody may send


@pytest.fixture(scope="module")
def wstest() -> Path:
    try:
        return autobahn.installed()
    except autobahn.Unavailable as reason:
        pytest.skip(f"Autobahn|Testsuite cannot be installed: {reason}")


@pytest.fixture(scope="module")
def stage(wstest: Path) -> Iterator[Judged]:
    with judged(MIXED_APP) as stage:
        yield stage


def fuzzed(
    wstest: Path, stage: Judged, scratch: Path, cases: Sequence[str], within: float
) -> dict[str, dict[str, autobahn.Verdict]]:
    """The same cases against the app and through the sidecar, in one session of the fuzzer."""
    outdir = scratch / "reports"
    orders = autobahn.specification(
        outdir,
        {"direct": f"ws://127.0.0.1:{USER}/echo", "proxied": f"ws://127.0.0.1:{REQUEST}/echo"},
        cases,
    )
    done = stage.namespace.run(
        [str(wstest), "-m", "fuzzingclient", "-s", str(orders)],
        timeout=within, capture_output=True, text=True, cwd=scratch,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = autobahn.verdicts(outdir)
    assert found["direct"].keys() == found["proxied"].keys()
    # What judges must itself be sound: an app that fails everything would agree with any proxy.
    unsound = {case for case, verdict in found["direct"].items() if not GOOD.issuperset(verdict)}
    assert unsound <= FAULTS_OF_THE_APP
    return found


def differences(found: dict[str, dict[str, autobahn.Verdict]]) -> list[str]:
    return [
        f"{case}: direct {verdict}, proxied {found['proxied'][case]}"
        for case, verdict in found["direct"].items()
        if found["proxied"][case] != verdict
    ]


@pytest.mark.qp("QP-080")
def test_cases_from_every_section_end_as_without_the_sidecar(wstest: Path, stage: Judged, tmp_path: Path) -> None:
    found = fuzzed(wstest, stage, tmp_path, QUICK, QUICK_WITHIN)
    assert found["direct"].keys() == set(QUICK)
    assert differences(found) == []


@pytest.mark.qp("QP-144")
def test_nothing_is_left_of_the_fuzzers_connections(stage: Judged) -> None:
    """They are counted while they last and gone with the tunnel; runs after the fuzzing, in the same group."""
    stage.assert_at_rest(pool_limit=1000)


@pytest.mark.long
@pytest.mark.qp("QP-080")
@pytest.mark.parametrize("cases", GROUPS.values(), ids=GROUPS.keys())
def test_every_case_ends_as_without_the_sidecar(
    wstest: Path, stage: Judged, tmp_path: Path, cases: tuple[str, ...]
) -> None:
    found = fuzzed(wstest, stage, tmp_path, cases, GROUP_WITHIN)
    sections = {case.split(".")[0] for case in found["direct"]}
    assert sections == {case.split(".")[0] for case in cases}
    assert differences(found) == []
    stage.assert_at_rest(pool_limit=1000)

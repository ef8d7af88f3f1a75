"""Proves queueproxy.bench.flags: what a user types, and a whole short run with its table and its JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from queueproxy.bench.figures import Measure
from queueproxy.bench.flags import _as_json, bench_main, parser

BARE_PAIR = str(Path(__file__).with_name("bare_pair.py"))
PROGRAM = "import sys; from queueproxy.bench.flags import bench_main; sys.exit(bench_main(sys.argv[1:]))"


@pytest.mark.parametrize(
    "argv",
    [
        ["--connections", "0"],
        ["--connections", "1,x"],
        ["--connections", "2000"],
        ["--subjects", "ours,theirs"],
        ["--scenarios", "huge"],
        ["--duration", "0"],
        ["--duration", "soon"],
        ["--rounds", "0"],
        ["--wakes", "0"],
        ["--unknown"],
    ],
    ids=" ".join,
)
def test_wrong_flags_end_with_64_and_a_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench_main(argv)
    assert ended.value.code == 64
    assert "queueproxy bench --help" in capsys.readouterr().err


def test_lists_are_read() -> None:
    flags = parser().parse_args(["--connections", "1,8", "--subjects", "ours,bare", "--scenarios", "64k,echo"])
    assert (flags.connections, flags.subjects, flags.scenarios) == ((1, 8), ("ours", "bare"), ("64k", "echo"))


def test_bodies_are_all_that_is_about_bytes() -> None:
    flags = parser().parse_args(["--scenarios", "small,bodies"])
    assert flags.scenarios == ("small", "64k", "1m", "up64k", "up1m", "ws1k", "ws64k")


def test_a_source_tree_has_its_calibrator() -> None:
    assert parser().parse_args([]).calibrator == BARE_PAIR


def bench(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PROGRAM, *argv], capture_output=True, text=True, timeout=100)


@pytest.mark.slow
@pytest.mark.root
def test_a_short_run_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    ran = bench(
        *("--subjects", "bare,peer", "--peer", BARE_PAIR, "--peer-name", "twin", "--quick", "--duration", "0.3"),
        *("--connections", "2", "--generator", "own", "--json", str(result), "--scenarios", "small,ws1k"),
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[0].split() == ["bare", "twin"]
    assert "CPU per request, us (small, 2 connections)" in ran.stdout
    assert "round 1/1, bare" in ran.stderr
    written = json.loads(result.read_text())
    assert written["settings"]["generator"] == "own"
    assert written["machine"]["processors"] == os.cpu_count()
    assert written["subjects"]["peer"]["name"] == "twin"
    for subject in ("bare", "peer"):
        summary = written["subjects"][subject]["summary"]["cpu_us/small/2"]
        assert summary["low"] <= summary["median"] <= summary["high"]
        assert written["subjects"][subject]["rounds"][0]["rss_mb"] > 5
        assert written["subjects"][subject]["rounds"][0]["body_mb_cpu_s/ws1k/2"] > 0
    assert written["ratios"] == {}  # to ours
    assert written["budgets"] == []  # ours was not measured: nothing to judge


def test_ratios_are_in_the_json_too() -> None:
    cpu = Measure("cpu_us", "small", 32)
    figures = {"ours": [{cpu: 30.0}, {cpu: 50.0}, {cpu: 30.0}], "bare": [{cpu: 20.0}, {cpu: 25.0}, {cpu: 15.0}]}
    written = _as_json(figures, {"ours": "ours", "bare": "bare"}, [], {})
    assert written["ratios"] == {"bare": {"cpu_us/small/32": 2.0}}


@pytest.mark.slow
@pytest.mark.root
def test_a_peer_that_cannot_start_ends_the_run_with_1_and_its_name(tmp_path: Path) -> None:
    ran = bench("--subjects", "peer", "--peer", str(tmp_path / "none"), "--quick")
    assert ran.returncode == 1
    assert "peer: " in ran.stderr
    assert "not an executable file" in ran.stderr

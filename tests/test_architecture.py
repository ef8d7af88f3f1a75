"""What keeps the plan true: imports point one way, pure stays pure, each module has its test, none grows too long."""

import ast
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from tests import contract_coverage

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "queueproxy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = {contract["name"]: contract for contract in PROJECT["tool"]["importlinter"]["contracts"]}
PURE = CONTRACTS["pure modules do no I/O"]["source_modules"]
IO = ("asyncio", "socket", "ssl", "logging", "subprocess")
HEAVY = (
    "aiohttp", "grpc", "kubernetes", "opentelemetry", "prometheus_client", "hpack", "yaml",
    "queueproxy.freeze.node", "queueproxy.local", "queueproxy.bench",
)  # fmt: skip
LINES_MAX = 400
# Modules without a test file of their own, each with the reason. May only shrink.
UNTESTED: dict[str, str] = {}


def _modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _source(module: str) -> Path:
    return ROOT / Path(*module.split(".")).with_suffix(".py")


def _loaded_by(module: str, *flags: str) -> set[str]:
    """The modules a bare interpreter holds after importing one of ours."""
    path = [str(ROOT), sysconfig.get_path("platlib")]  # -S leaves site-packages out, and with it what .pth files load
    program = f"import sys; sys.path[:0] = {path}; import {module}, json; print(json.dumps([*sys.modules]))"
    run = subprocess.run([sys.executable, *flags, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout))


# All tests are parsed for their marks, once for each worker: 2 s.
ONE_PARSES_THEM = pytest.mark.xdist_group("marks")


def _test_of(module: Path) -> Path:
    return ROOT / "tests" / module.relative_to(PACKAGE).with_name(f"test_{module.name}")


def test_imports_point_one_way() -> None:
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent)) or shutil.which("lint-imports")
    assert command, "import-linter is not installed: use `make test`, or pip install -e '.[lint]'"
    run = subprocess.run([command, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.slow  # an interpreter for each
@pytest.mark.parametrize("module", [name for name in PURE if _source(name).exists()])
def test_a_pure_module_loads_nothing_that_does_io(module: str) -> None:
    assert sorted(_loaded_by(module, "-I", "-S").intersection(IO)) == []


@pytest.mark.parametrize("module", [name for name in ("queueproxy.app",) if _source(name).exists()])
def test_the_sidecar_loads_nothing_heavy(module: str) -> None:
    loaded = _loaded_by(module, "-I")
    assert sorted(name for name in loaded if _is_heavy(name)) == []


def _is_heavy(name: str) -> bool:
    return any(name == heavy or name.startswith(heavy + ".") for heavy in HEAVY)


def test_every_module_has_its_test() -> None:
    untested = [_relative(path) for path in _modules() if not _test_of(path).exists()]
    missing = sorted(set(untested) - set(UNTESTED))
    assert not missing, "\n".join(["modules without a test file of their own:", *missing])


def test_an_exception_is_still_one() -> None:
    for module in UNTESTED:
        assert (ROOT / module).exists(), "the module is gone: shorten the list"
        assert not _test_of(ROOT / module).exists(), "it has a test now: shorten the list"


def test_room_doors_are_docstrings_only() -> None:
    # One convenience import in an __init__ would put sockets into every pure sibling.
    for door in sorted(PACKAGE.rglob("__init__.py")):
        said, *rest = ast.parse(door.read_text()).body
        assert isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant), f"{_relative(door)}: no docstring"
        # The package itself also carries its version.
        extra = [node for node in rest if door.parent != PACKAGE or not isinstance(node, ast.Assign)]
        assert not extra, f"{_relative(door)} does more than say what the room is for"


def test_no_module_is_longer_than_it_may_be() -> None:
    lengths = {_relative(path): len(path.read_text().splitlines()) for path in _modules()}
    long = [f"{path}: {length}" for path, length in lengths.items() if length > LINES_MAX]
    assert not long, "\n".join([f"modules over {LINES_MAX} lines:", *long])


def test_no_tracked_file_names_a_machine() -> None:
    tracked = _tracked()
    # Written in pieces, or this file would find itself.
    places = [r"/wo" + r"rk/", r"/tmp/v" + r"env", r"/ro" + r"ot/", r"/ho" + r"me/[a-z]"]
    machine = re.compile(r"(?<![\w.$}/-])(?:" + "|".join(places) + ")")
    index = re.compile("--ind" + "ex-url|--extra-ind" + "ex-url|--trusted-h" + "ost|--find-l" + "inks")
    found = []
    for path in tracked:
        try:
            text = path.read_text()
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        found += [
            f"{_relative(path)}:{number}: {line.strip()[:100]}"
            for number, line in enumerate(text.splitlines(), 1)
            if machine.search(line) or index.search(line)
        ]
    assert found == []


def _tracked() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    # A checkout owned by somebody else is still ours to read.
    run = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"], cwd=ROOT, capture_output=True, timeout=60, check=True
    )
    return [ROOT / name for name in run.stdout.decode().split("\0") if name]


@pytest.mark.slow  # reads every test
@ONE_PARSES_THEM
def test_the_coverage_table_is_current() -> None:
    assert contract_coverage.TABLE.exists() and contract_coverage.TABLE.read_text() == contract_coverage.rendered(), (
        "docs/contract-coverage.md is out of date: run `make coverage-doc`"
    )


@ONE_PARSES_THEM
def test_every_claim_names_a_requirement() -> None:
    known = {number for _, rows in contract_coverage.sections() for number, _ in rows}
    unknown = {number: files for number, files in contract_coverage.claims().items() if number not in known}
    assert unknown == {}


def test_every_requirement_is_listed_once() -> None:
    numbers = [number for _, rows in contract_coverage.sections() for number, _ in rows]
    assert len(numbers) == len(set(numbers)) == 368  # 208 QP and 120 FZ, 27 D and 13 L


@pytest.mark.fz("FZ-147")
@ONE_PARSES_THEM
def test_what_no_test_claims_has_a_reason_and_nothing_else_has_one() -> None:
    known = {number for _, rows in contract_coverage.sections() for number, _ in rows}
    claimed, reasons = contract_coverage.claims().keys(), contract_coverage.reasons()
    partly = {number for number, reason in reasons.items() if reason.startswith(contract_coverage.PARTLY)}
    excused = reasons.keys() - partly
    assert known - claimed - excused == set(), "write a test, or a line into docs/contract-reasons.txt"
    assert excused & claimed == set(), "these are claimed: take their lines out of docs/contract-reasons.txt"
    assert partly - claimed == set(), "these are not claimed at all"
    assert excused - known == set()


@pytest.mark.xdist_group("lanes")
def test_tests_of_one_group_run_on_one_worker(request: pytest.FixtureRequest) -> None:
    """Those that share a port or the machine's journal rely on it. pytest 9.2 and xdist 3.8 together ignore the mark
    without a word; then two orphan tests mend each other's orphans."""
    if not hasattr(request.config, "workerinput"):
        pytest.skip("one process: all tests are one group")
    assert request.node.nodeid.endswith("@lanes")

"""The image for every architecture a node may have: nothing in the recipe or in the package is of one only (QP-014)."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURES = ("x86_64", "aarch64")


def _dependencies() -> list[str]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        found: list[str] = tomllib.load(file)["project"]["dependencies"]
    return found


@pytest.mark.qp("QP-014")
def test_the_recipe_names_no_platform_and_fetches_nothing_by_hand() -> None:
    text = (ROOT / "Dockerfile").read_text()
    recipe = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert not re.search(r"--platform|amd64|arm64|x86|aarch64|TARGETARCH|curl|wget|ADD ", recipe)


@pytest.mark.qp("QP-014")
def test_the_package_is_source_alone() -> None:
    kinds = {
        path.suffix for path in (ROOT / "queueproxy").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert kinds <= {".py", ".typed", ".html", ".css", ".js", ".svg"}, "nothing is compiled for one machine"
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert "ext-modules" not in tomllib.load(file)["tool"].get("setuptools", {})


@pytest.mark.qp("QP-014")
def test_no_system_call_is_made_by_its_number() -> None:
    # Numbers differ between architectures; what libc names does not.
    for path in (ROOT / "queueproxy").rglob("*.py"):
        assert not re.search(r"\.syscall\(", path.read_text()), path


@pytest.mark.slow
@pytest.mark.qp("QP-014")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_dependency_is_there_ready_made(architecture: str) -> None:
    """The image has no compiler: a pinned version without a wheel for an architecture would end its build."""
    platforms = [f"--platform=manylinux_2_{minor}_{architecture}" for minor in (17, 28, 36)]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed", "--target=none"]
    command += ["--only-binary=:all:", "--python-version=3.11", f"--platform=manylinux2014_{architecture}", *platforms]
    ran = subprocess.run([*command, *_dependencies()], capture_output=True, text=True, timeout=100, check=False)
    if re.search(r"connection|name resolution|timed out|Retrying|No module named pip", ran.stderr, re.IGNORECASE):
        pytest.skip(f"needs a package index: {ran.stderr.strip()[-200:]}")
    assert ran.returncode == 0, ran.stderr
    assert "Would install" in ran.stdout

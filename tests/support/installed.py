"""Installs extensions: as pip does it, from a wheel, or as pip leaves it, for tests that have no time."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile


def wheel(project: Path, into: Path) -> Path:
    """The wheel of a project of plain modules, made without its build backend, which would come from a registry."""
    described = tomllib.loads((project / "pyproject.toml").read_text())
    about, modules = described["project"], described["tool"]["setuptools"]["py-modules"]
    title, version = about["name"].replace("-", "_"), about["version"]
    info = f"{title}-{version}.dist-info"
    files = {f"{name}.py": (project / f"{name}.py").read_text() for name in modules}
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {version}\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = "".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in about["entry-points"].items()
    )
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    made = into / f"{title}-{version}-py3-none-any.whl"
    with ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return made


def pip_install(made: Path, into: Path) -> None:
    """What `pip install --target` makes of it."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
    run = subprocess.run(
        [*command, "--target", str(into), str(made)], capture_output=True, text=True, timeout=100
    )  # fmt: skip
    assert run.returncode == 0, run.stderr


def lay(place: Path, module: str, source: str, entries: Mapping[str, str], version: str = "1.0") -> Path:
    """A distribution as it lies on sys.path: one module and the entry points of our group."""
    place.mkdir(exist_ok=True)
    (place / f"{module}.py").write_text(source)
    info = place / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: {version}\n")
    lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
    (info / "entry_points.txt").write_text(f"[queueproxy.extensions]\n{lines}")
    return place

"""The projected token: found, read, rotated the way a kubelet does it."""

import os
from pathlib import Path

import pytest

from queueproxy.freeze.credential import TokenFile, find


@pytest.mark.fz("FZ-002")
def test_no_token_is_no_freezer(tmp_path: Path) -> None:
    assert find(str(tmp_path / "missing")) is None
    assert find(str(tmp_path)) is None
    (tmp_path / "..data").mkdir()
    assert find(str(tmp_path)) is None


def test_our_audience_is_taken_else_the_only_one(tmp_path: Path) -> None:
    (tmp_path / "state-token").write_text("a")
    assert find(str(tmp_path)) == str(tmp_path / "state-token")
    (tmp_path / "other").write_text("b")
    assert find(str(tmp_path)) is None, "which one is anybody's guess"
    (tmp_path / "concurrency-state-hook").write_text("c")
    assert find(str(tmp_path)) == str(tmp_path / "concurrency-state-hook")


def projected(directory: Path, version: str, text: str) -> None:
    """As the kubelet's atomic writer does: a new directory, and one rename of a link to it."""
    (directory / version).mkdir()
    (directory / version / "token").write_text(text)
    os.symlink(version, directory / "..tmp")
    os.rename(directory / "..tmp", directory / "..data")
    if not (directory / "token").is_symlink():
        os.symlink("..data/token", directory / "token")


@pytest.mark.fz("FZ-069")
def test_a_rotation_is_seen_once(tmp_path: Path) -> None:
    projected(tmp_path, "..1", "first\n")
    token = TokenFile(str(tmp_path / "token"))
    assert token.value == "" and token.refresh() and token.value == "first"
    assert not token.refresh()
    projected(tmp_path, "..2", "second\n")
    assert token.refresh() and token.value == "second"
    assert not token.refresh()


def test_a_file_that_is_gone_for_a_moment_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    token = TokenFile(str(path))
    token.refresh()
    path.unlink()
    assert not token.refresh() and token.value == "first"


@pytest.mark.fz("FZ-102", "FZ-131")
@pytest.mark.parametrize("text", ["", "a b", "a\r\nX: y", "a\x00b", "tökén", "x" * 20_000], ids=lambda text: text[:8])
def test_what_cannot_be_part_of_a_head_is_no_token(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    token = TokenFile(str(path))
    token.refresh()
    assert token.value == ""


def test_the_repr_does_not_tell(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("secret")
    token = TokenFile(str(path))
    token.refresh()
    assert repr(token) == f"<TokenFile {path} read>"

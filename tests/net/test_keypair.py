"""Where the certificate is, and what it means when it is not or cannot be looked at."""

import os
from pathlib import Path

import pytest

from queueproxy.net.keypair import LARGEST, Contents, KeyPair, TlsFailed


def put(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).write_bytes(name.encode())


@pytest.mark.qp("QP-320", "QP-047")
@pytest.mark.parametrize("names", [(), ("tls.crt",), ("tls.key",)], ids=["none", "certificate", "key"])
def test_one_file_is_no_pair(tmp_path: Path, names: tuple[str, ...]) -> None:
    put(tmp_path, *names)
    assert KeyPair.mounted(str(tmp_path)) is None


@pytest.mark.qp("QP-320")
def test_a_directory_that_is_not_there_holds_no_pair(tmp_path: Path) -> None:
    assert KeyPair.mounted(str(tmp_path / "none")) is None


@pytest.mark.qp("QP-320")
def test_both_files_are_a_pair_and_are_read(tmp_path: Path) -> None:
    put(tmp_path, "tls.crt", "tls.key")
    pair = KeyPair.mounted(str(tmp_path))
    assert pair == (str(tmp_path / "tls.crt"), str(tmp_path / "tls.key"))
    assert pair.read() == (b"tls.crt", b"tls.key")


@pytest.mark.qp("QP-320")
def test_what_cannot_be_looked_at_is_fatal_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "tls.crt"
    path.symlink_to("tls.crt")
    with pytest.raises(TlsFailed) as caught:
        KeyPair.mounted(str(tmp_path))
    assert caught.value.message == f'Failed to verify the file path "{path}"'
    assert caught.value.reason == f"stat {path}: too many levels of symbolic links"


def test_a_file_in_the_place_of_the_directory_is_fatal(tmp_path: Path) -> None:
    put(tmp_path, "certs")
    with pytest.raises(TlsFailed, match="not a directory"):
        KeyPair.mounted(str(tmp_path / "certs"))


def test_neither_a_fifo_nor_an_endless_file_stops_the_reader(tmp_path: Path) -> None:
    put(tmp_path, "tls.crt")
    os.mkfifo(tmp_path / "tls.key")
    pair = KeyPair(str(tmp_path / "tls.crt"), str(tmp_path / "tls.key"))
    with pytest.raises(ValueError, match="not a regular file"):
        pair.read()
    for endless in ("/dev/zero", tmp_path / "large"):
        (tmp_path / "large").write_bytes(b"x" * (LARGEST + 1))
        (tmp_path / "tls.key").unlink()
        (tmp_path / "tls.key").symlink_to(endless)
        with pytest.raises(ValueError, match="larger than"):
            pair.read()


def test_a_key_is_never_printed() -> None:
    assert "secret" not in repr(Contents(b"open", b"secret")) + str(Contents(b"open", b"secret"))

"""What a killed run leaves to be mended, and who is believed about it."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from queueproxy.local import procfs
from queueproxy.local.journal import (
    Journal,
    JournalError,
    Record,
    decode,
    encode,
    open_journal,
    open_journals,
    owner_lives,
    places,
    run_name,
)
from queueproxy.local.procfs import Identity

NAME = "queueproxy-4242-f00-ab12"
RECORD = Record(
    name=NAME,
    owner=Identity(4242, 0xF00),
    boot="boot",
    pids="pid:[1]",
    mechanism="cgroup2",
    app=Identity(4243, 0xF01),
    guardian=4241,
    freezer=f"/sys/fs/cgroup/unified/{NAME}",
    cpu=f"/sys/fs/cgroup/cpu/{NAME}",
    cpu_before="max 100000",
    others=(f"/sys/fs/cgroup/cpuacct/{NAME}",),
    command=("app", "--flag"),
)


def changed(**fields: Any) -> bytes:
    raw = json.loads(encode(RECORD))
    raw.update(fields)
    return json.dumps(raw).encode()


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal"), create=True)
    journal.write(RECORD)
    assert journal.read(NAME) == RECORD
    assert list(journal.records()) == [RECORD]
    journal.write(RECORD.with_(app=None))
    assert journal.read(NAME) == RECORD.with_(app=None)
    journal.remove(NAME)
    assert journal.read(NAME) is None
    journal.remove(NAME)
    assert os.listdir(journal.path) == []
    journal.close()


@pytest.mark.fz("FZ-132")
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="half a file"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param(changed(name="../../etc"), id="a name that climbs"),
        pytest.param(changed(freezer="/sys/fs/cgroup/unified/system.slice"), id="a cgroup that is not ours"),
        pytest.param(changed(freezer=f"/sys/fs/cgroup/../../tmp/{NAME}"), id="a path that climbs"),
        pytest.param(changed(freezer=NAME), id="a relative path"),
        pytest.param(changed(cpu="/sys/fs/cgroup/cpu"), id="the root of a controller"),
        pytest.param(changed(others=["/sys/fs/cgroup/cpuacct/x"]), id="another cgroup that is not ours"),
        pytest.param(changed(app=[1, 0]), id="init as the app"),
        pytest.param(changed(app=[-5, 0]), id="a process group as the app"),
        pytest.param(changed(app=["x", 0]), id="a word as the app"),
        pytest.param(changed(owner=[1]), id="half an owner"),
    ],
)
def test_a_record_that_could_lead_elsewhere_is_not_believed(data: bytes) -> None:
    with pytest.raises(JournalError):
        decode(data)


def test_a_broken_file_is_reported_and_does_not_hide_the_others(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal"), create=True)
    journal.write(RECORD)
    (tmp_path / "journal" / "queueproxy-1-2-0000.json").write_bytes(b"{")
    (tmp_path / "journal" / "notes.txt").write_bytes(b"not ours")
    broken, record = journal.records()
    assert record == RECORD
    assert isinstance(broken, tuple)
    assert broken[0] == "queueproxy-1-2-0000.json"
    journal.close()


def test_a_record_under_another_ones_name_is_not_believed(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal"), create=True)
    (tmp_path / "journal" / "queueproxy-1-2-0000.json").write_bytes(encode(RECORD))
    (found,) = journal.records()
    assert isinstance(found, tuple)
    assert NAME in found[1]
    journal.close()


def test_the_directory_is_made_for_us_alone(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal"), create=True)
    assert stat.S_IMODE((tmp_path / "journal").stat().st_mode) == 0o700
    journal.close()


def test_a_directory_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal").chmod(0o777)
    with pytest.raises(JournalError, match="not ours alone"):
        Journal(str(tmp_path / "journal"), create=True)


def test_a_symlink_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "journal").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match="journal"):
        Journal(str(tmp_path / "journal"), create=True)


def test_root_writes_below_run_and_others_to_their_own_places() -> None:
    assert places(0, {}) == ("/run/queueproxy", "/tmp/queueproxy-0")
    assert places(1000, {"XDG_RUNTIME_DIR": "/run/user/1000"}) == ("/run/user/1000/queueproxy", "/tmp/queueproxy-1000")
    assert places(1000, {"XDG_RUNTIME_DIR": "relative"}) == ("/tmp/queueproxy-1000",)


def test_the_next_place_is_taken_when_the_first_cannot_be(tmp_path: Path) -> None:
    # A uid nobody has, so that the only usable place is the one named by the environment.
    journal = open_journal(4_000_000, {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert journal.path == str(tmp_path / "queueproxy")
    journal.close()
    (found,) = open_journals(4_000_000, {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert found.path == str(tmp_path / "queueproxy")
    found.close()


def test_without_any_place_every_refusal_is_named(tmp_path: Path) -> None:
    (tmp_path / "queueproxy").write_text("in the way")
    trap = Path("/tmp/queueproxy-4000001")
    trap.write_text("in the way")
    try:
        with pytest.raises(JournalError, match=f"{tmp_path}.*4000001"):
            open_journal(4_000_001, {"XDG_RUNTIME_DIR": str(tmp_path)})
    finally:
        trap.unlink()


def test_a_recycled_pid_is_not_the_owner() -> None:
    us = procfs.identity(os.getpid())
    assert us is not None
    mine = RECORD.with_(owner=us, boot=procfs.boot_id(), name=run_name(us))
    assert owner_lives(mine)
    assert not owner_lives(mine.with_(owner=Identity(us.pid, us.started + 1)))
    assert not owner_lives(mine.with_(boot="another boot"))

"""Records on disk: whole or not at all, ours or not touched."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from queueproxy.freeze.node import journal as module
from queueproxy.freeze.node.held import HeldContainer, Spot, encode_held
from queueproxy.freeze.node.journal import Journal, JournalError, Unreadable
from queueproxy.freeze.node.record import Record, encode_record
from queueproxy.freeze.vocabulary import Rung
from tests.support import podfacts


def record(number: int = 1, generation: int = 1) -> Record:
    facts = podfacts.pod(number)
    return Record(
        facts.uid, facts.namespace, facts.name, facts.revision, facts.qos, facts.ips, facts.sidecar_id,
        facts.containers, generation, Rung.FROZEN, 30.0,
    )  # fmt: skip


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(str(tmp_path / "run" / "journal")) as opened:
        yield opened


def names(journal: Journal) -> list[str]:
    return sorted(os.listdir(journal.path))


@pytest.mark.fz("FZ-092")
def test_what_is_written_is_read_by_the_next_one(journal: Journal) -> None:
    for number in (2, 1):
        journal.write(record(number))
    journal.write(record(1, generation=2))
    with Journal(journal.path) as heir:
        assert list(heir.records()) == [record(1, generation=2), record(2)]


@pytest.mark.fz("FZ-092")
def test_what_is_removed_is_gone_and_removing_again_is_harmless(journal: Journal) -> None:
    journal.write(record())
    journal.remove(podfacts.pod_uid())
    journal.remove(podfacts.pod_uid())
    assert list(journal.records()) == [] and names(journal) == []


def test_only_we_can_read_it(journal: Journal) -> None:
    journal.write(record())
    assert stat.S_IMODE(os.stat(journal.path).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(f"{journal.path}/{podfacts.pod_uid()}.json").st_mode) == 0o600


def test_a_directory_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir(mode=0o755)
    with Journal(str(tmp_path / "journal")):
        assert stat.S_IMODE((tmp_path / "journal").stat().st_mode) == 0o700


def test_a_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "journal").symlink_to(tmp_path / "real")
    with pytest.raises(OSError):
        Journal(str(tmp_path / "journal"))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="NOT PROVEN HERE: only root can make another's directory")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    os.chown(tmp_path / "journal", 65532, 65532)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(JournalError, match="belongs to uid 65532, not to 0"):
        Journal(str(tmp_path / "journal"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_create_a_missing_directory_stays_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Journal(str(tmp_path / "journal"), create=False)
    assert not (tmp_path / "journal").exists()


@pytest.fixture(params=["exchange", "rename"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to put a record in place: most filesystems can exchange, some cannot."""
    if request.param == "rename":
        monkeypatch.setattr(module, "_exchanged", lambda *_: False)
    return str(request.param)


@pytest.mark.fz("FZ-092", "FZ-097")
def test_a_reader_sees_the_old_record_or_the_new_one_and_never_half_of_one(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    journal.write(record(generation=1))

    def killed(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt  # after the draft, before it is in place

    with monkeypatch.context() as patched:
        patched.setattr(*((module, "_exchanged", killed) if way == "exchange" else (os, "rename", killed)))
        with pytest.raises(KeyboardInterrupt):
            journal.write(record(generation=2))
    assert len(names(journal)) == 2, "the draft of the killed one lies about"
    with Journal(journal.path) as heir:
        assert list(heir.records()) == [record(generation=1)]
        assert len(names(heir)) == 1, "and is swept away"


def test_killed_right_after_the_exchange_the_new_record_is_in_place(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.write(record(generation=1))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            journal.write(record(generation=2))
    assert list(journal.records()) == [record(generation=2)] and len(names(journal)) == 1


def test_either_way_replaces_and_leaves_nothing_else(journal: Journal, way: str) -> None:
    for generation in (1, 2, 3):
        journal.write(record(generation=generation))
        assert list(journal.records()) == [record(generation=generation)] and len(names(journal)) == 1


@pytest.mark.parametrize("fails", ["open", "write", "short", "place"])
def test_a_write_that_fails_leaves_the_earlier_record_and_no_draft(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, fails: str, way: str
) -> None:
    journal.write(record(generation=1))

    def full(*_: object, **__: object) -> int:
        if fails == "short":
            return 3
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        if fails == "place" and way == "exchange":
            patched.setattr(module, "_exchanged", full)
        else:
            patched.setattr(os, {"short": "write", "place": "rename"}.get(fails, fails), full)
        with pytest.raises(OSError, match=r"No space left|no room for a whole record"):
            journal.write(record(generation=2))
    assert list(journal.records()) == [record(generation=1)] and len(names(journal)) == 1


def test_nothing_that_is_no_uid_becomes_a_file_name(journal: Journal) -> None:
    for uid in ("", ".", "../x", "a" * 36, podfacts.pod_uid() + "\n", podfacts.pod_uid().upper().replace("0", "A")):
        with pytest.raises(ValueError, match="is no pod uid"):
            journal.write(record()._replace(uid=uid))
        with pytest.raises(ValueError, match="is no pod uid"):
            journal.remove(uid)
    assert names(journal) == []


@pytest.mark.fz("FZ-097")
def test_what_does_not_read_is_reported_and_left_with_what_can_be_saved_of_it(journal: Journal) -> None:
    uid, id_ = podfacts.pod_uid(), podfacts.container_id(16)
    path = f"burstable/pod{uid}/{id_}"
    held = encode_held(uid, [HeldContainer("user", id_, Spot("", "kubepods", path, 7), True, None, None, None)])
    data = encode_record(record()._replace(held=held)).replace(b'"version":1', b'"version":9')
    Path(journal.path, f"{uid}.json").write_bytes(data)
    Path(journal.path, f"{podfacts.pod_uid(2)}.json").write_bytes(b"{")
    journal.write(record(3))
    assert list(journal.records()) == [
        Unreadable(uid, "version '9' is not 1", held),
        Unreadable(podfacts.pod_uid(2), "no JSON", None),
        record(3),
    ]
    assert len(names(journal)) == 3


def test_a_record_under_another_pods_name_is_not_believed(journal: Journal) -> None:
    Path(journal.path, f"{podfacts.pod_uid(2)}.json").write_bytes(encode_record(record(1)))
    assert list(journal.records()) == [Unreadable(podfacts.pod_uid(2), f"the record of {podfacts.pod_uid(1)}", None)]


def test_what_is_no_regular_file_is_neither_read_nor_waited_for(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(encode_record(record(1)))
    os.symlink(tmp_path / "secret", f"{journal.path}/{podfacts.pod_uid(1)}.json")
    os.mkfifo(f"{journal.path}/{podfacts.pod_uid(2)}.json")
    os.mkdir(f"{journal.path}/{podfacts.pod_uid(3)}.json")
    found = list(journal.records())
    assert [type(one) for one in found] == [Unreadable] * 3
    assert [one.held for one in found if isinstance(one, Unreadable)] == [None] * 3


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="NOT PROVEN HERE: only root can make another's file")
def test_a_file_of_somebody_else_is_not_believed(journal: Journal) -> None:
    journal.write(record())
    os.chown(f"{journal.path}/{podfacts.pod_uid()}.json", 65532, 65532)
    found = list(journal.records())
    assert found == [Unreadable(podfacts.pod_uid(), "not a regular file of ours", None)]


def test_other_names_are_not_looked_at(journal: Journal) -> None:
    for name in ("README", "x.json", f"{podfacts.pod_uid()}.json.bak", f"{podfacts.pod_uid()}"):
        Path(journal.path, name).write_text("x")
    assert list(journal.records()) == [] and len(names(journal)) == 4


def test_closing_twice_lets_go_once(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    journal = Journal(str(tmp_path / "journal"))
    assert repr(journal) == f"<Journal {journal.path}>"
    journal.close()
    journal.close()
    assert repr(journal).endswith(" closed>") and len(os.listdir("/proc/self/fd")) == before

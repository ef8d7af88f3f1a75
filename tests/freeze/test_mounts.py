"""What a sidecar makes of what it finds mounted."""

from pathlib import Path

import pytest

from queueproxy.freeze.address import Address
from queueproxy.freeze.annotations import DEFAULTS, Mode
from queueproxy.freeze.mounts import Mounts, Way, look


@pytest.fixture
def mounts(tmp_path: Path) -> Mounts:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "concurrency-state-hook").write_text("t")
    return Mounts("10.0.0.1", str(tmp_path / "tokens"), str(tmp_path / "annotations"))


@pytest.mark.fz("FZ-002")
def test_without_a_token_there_is_no_way_whatever_else_is_there(mounts: Mounts, tmp_path: Path) -> None:
    (tmp_path / "tokens" / "concurrency-state-hook").unlink()
    (tmp_path / "annotations").write_text('queueproxy.dev/freezer="nonsense"\nqueueproxy.dev/freeze="on"\n')
    assert look(mounts._replace(endpoint="http://10.0.0.2:9696")) == (None, [])


@pytest.mark.fz("FZ-004")
def test_stock_knative_gives_a_token_and_the_nodes_address(mounts: Mounts) -> None:
    way, notes = look(mounts)
    assert way == Way(Address("10.0.0.1", 9696), mounts.tokens + "/concurrency-state-hook", DEFAULTS) and notes == []


@pytest.mark.fz("FZ-110")
def test_annotations_name_the_freezer_and_the_policy(mounts: Mounts, tmp_path: Path) -> None:
    (tmp_path / "annotations").write_text(
        'queueproxy.dev/freezer="http://$HOST_IP:9797"\nqueueproxy.dev/freeze="shadow"\nqueueproxy.dev/min-uptime="x"\n'
    )
    way, notes = look(mounts)
    assert way is not None and way.address == Address("10.0.0.1", 9797) and way.policy.mode is Mode.SHADOW
    assert len(notes) == 1 and "min-uptime" in notes[0]


def test_an_annotation_may_switch_the_freezer_off(mounts: Mounts, tmp_path: Path) -> None:
    (tmp_path / "annotations").write_text('queueproxy.dev/freezer="off"\n')
    assert look(mounts) == (None, [])


@pytest.mark.fz("FZ-069")
def test_a_control_plane_of_old_says_by_its_endpoint_whether_it_wants_a_freezer(mounts: Mounts) -> None:
    old = mounts._replace(token_path="/var/run/secrets/tokens/state-token")
    assert look(old) == (None, [])
    way, _ = look(old._replace(endpoint="http://$HOST_IP:9696"))
    assert way is not None and way.address == Address("10.0.0.1", 9696)

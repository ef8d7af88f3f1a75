"""Which curves a handshake may use: seen from the other side of one."""

import ssl

import pytest

from queueproxy.net import groups
from queueproxy.net.groups import NoSuchGroup, allow
from queueproxy.net.keypair import KeyPair
from queueproxy.net.tls import make_context
from queueproxy.net.tlsterms import Terms
from tests.support.tlspair import client_context, made, mount

EVERY = ("X25519", "P-256", "P-384", "P-521")
NAMES = {"P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    folder = tmp_path_factory.mktemp("certs")
    found = KeyPair.mounted(str(mount(folder / "certs", made(folder))))
    assert found is not None
    return found


def agree(server: ssl.SSLContext, curve: str) -> bool:
    """Whether a client that knows only this curve gets through."""
    context = client_context()
    context.set_ecdh_curve(NAMES.get(curve, curve))
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (context.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True))
    done: set[int] = set()
    for _ in range(4):
        for number, end in enumerate(ends):
            try:
                end.do_handshake()
                done.add(number)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                return False
    return len(done) == 2


CHOICES = [("P-384",), ("X25519",), ("P-256", "P-521"), ("P-521", "X25519", "P-384"), EVERY]


@pytest.mark.qp("QP-328")
@pytest.mark.parametrize("wanted", CHOICES, ids="+".join)
def test_these_and_no_others(pair: KeyPair, wanted: tuple[str, ...]) -> None:
    context = make_context(pair, Terms(), ("http/1.1",))
    assert allow(context, wanted) == wanted
    assert {curve for curve in EVERY if agree(context, curve)} == set(wanted)


@pytest.mark.qp("QP-328")
def test_without_a_way_into_the_library_only_the_first_is_left(pair: KeyPair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_control", lambda: None)
    context = make_context(pair, Terms(), ("http/1.1",))
    assert allow(context, ("P-521", "X25519")) == ("P-521",)
    assert [curve for curve in EVERY if agree(context, curve)] == ["P-521"]


@pytest.mark.qp("QP-328")
def test_what_the_library_does_not_know_is_left_out_and_nothing_left_is_an_error(pair: KeyPair) -> None:
    context = make_context(pair, Terms(), ("http/1.1",))
    assert allow(context, ("nonsense", "P-256")) == ("P-256",)
    with pytest.raises(NoSuchGroup, match=r"knows no curve nonsense, more"):
        allow(context, ("nonsense", "more"))

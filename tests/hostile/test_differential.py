"""What we forward is read alike by independent servers: one request, its bytes, and then the next (RFC 9112 11.2)."""

from collections.abc import Iterator

import pytest

from tests.hostile.corpus import Case, Outcome, corpus
from tests.support.differential import ENOUGH, PATIENCE, SENTINEL, SERVERS, Readers, parsed, readers

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("differential")]


@pytest.fixture(scope="module")
def servers() -> Iterator[Readers]:
    with readers() as running:
        yield running


def stream(outcome: Outcome) -> bytes:
    """The bytes as the app gets them, a chunked body in one chunk."""
    if b"\r\nTransfer-Encoding: chunked\r\n" not in outcome.out:
        return outcome.out + outcome.body
    chunk = b"%x\r\n%b\r\n" % (len(outcome.body), outcome.body) if outcome.body else b""
    return outcome.out + chunk + b"0\r\n" + b"".join(outcome.trailers) + b"\r\n"


FORWARDED = [
    pytest.param(case, number, id=f"{case.name} {number}" if number else case.name)
    for case in corpus("requests")
    for number, outcome in enumerate([outcome for outcome in case.outcomes if outcome.kind == "forward"])
]


@pytest.mark.parametrize("name", SERVERS)
def test_the_server_is_here(servers: Readers, name: str) -> None:
    if name not in servers.here:
        pytest.skip(f"needs the command {name}")
    expected, _ = parsed(SENTINEL)
    assert servers.read(name, SENTINEL) == [expected]


@pytest.mark.qp("QP-054")
@pytest.mark.parametrize(("case", "number"), FORWARDED)
def test_all_servers_read_what_we_meant(servers: Readers, case: Case, number: int) -> None:
    outcome = [outcome for outcome in case.outcomes if outcome.kind == "forward"][number]
    data = stream(outcome)
    meant, rest = parsed(data)
    assert rest == b""
    then, _ = parsed(SENTINEL)
    agreed = []
    for name in servers.here:
        how = outcome.but.get(name, "")
        said = servers.read(name, data + SENTINEL, patience=ENOUGH if "no" in how else PATIENCE)
        match how.split():
            case []:
                assert said == [meant, then], name
                agreed.append(name)
            case ["refuses", status]:
                assert said == [int(status)], name
            case ["says", "nothing"]:
                assert said == [], name
            case ["reads", "no", "further"]:
                assert said == [meant], name
                agreed.append(name)
            case ["capitalises"]:
                assert said == [{**meant, "method": meant["method"].upper()}, then], name
            case other:
                raise AssertionError(f"{case.name}: but {name} {other}?")
    assert len(agreed) >= 2 or len(servers.here) < 3, f"only {agreed} read it"

"""Where the freezer is."""

import pytest

from queueproxy.freeze.address import Address, where

NAME = "annotation queueproxy.dev/freezer"


@pytest.mark.fz("FZ-004")
@pytest.mark.parametrize(
    ("host_ip", "override", "address", "authority"),
    [
        ("10.0.0.1", "", ("10.0.0.1", 9696), "10.0.0.1:9696"),
        ("fd00::1", "", ("fd00::1", 9696), "[fd00::1]:9696"),
        ("[fd00::1]", "", ("fd00::1", 9696), "[fd00::1]:9696"),
        ("10.0.0.1", "http://$HOST_IP:9797", ("10.0.0.1", 9797), "10.0.0.1:9797"),
        ("10.0.0.1", "http://${HOST_IP}", ("10.0.0.1", 9696), "10.0.0.1:9696"),
        ("fd00::1", "http://$HOST_IP:9797/", ("fd00::1", 9797), "[fd00::1]:9797"),
        ("10.0.0.1", " http://192.0.2.7:80 ", ("192.0.2.7", 80), "192.0.2.7:80"),
        ("10.0.0.1", "http://[2001:db8::7]:80", ("2001:db8::7", 80), "[2001:db8::7]:80"),
        ("10.0.0.1", "unix:/run/f.sock", ("/run/f.sock", 0), "localhost"),
        ("", "unix:///run/f.sock", ("/run/f.sock", 0), "localhost"),
        ("", "http://192.0.2.7:80", ("192.0.2.7", 80), "192.0.2.7:80"),
    ],
)
def test_an_address_comes_from_host_ip_unless_something_says_otherwise(
    host_ip: str, override: str, address: tuple[str, int], authority: str
) -> None:
    found, warnings = where(host_ip, (NAME, override))
    assert found == Address(*address) and found.authority == authority and warnings == []


@pytest.mark.fz("FZ-004", "FZ-110")
@pytest.mark.parametrize(
    "wrong",
    ["http://freezer:9696", "http://10.0.0.1:0", "http://10.0.0.1:99999", "10.0.0.1:9696", "http://10.0.0.1:9696/x",
     "http://$POD_IP:9696", "http://fd00::1:9696", "http://[fe80::1%eth0]:9696", "unix:", "unix:/" + "x" * 200, "yes",
     "http://user@10.0.0.1:9696", "http://10.0.0.1:9696\r\nX: y", "ftp://10.0.0.1"],
)  # fmt: skip
def test_what_is_no_address_is_mentioned_and_the_default_holds(wrong: str) -> None:
    found, (warning,) = where("10.9.9.9", (NAME, wrong))
    assert found == Address("10.9.9.9", 9696)
    assert warning.startswith(NAME) and warning.isprintable()


def test_the_first_override_that_can_be_used_counts() -> None:
    assert where("10.0.0.1", (NAME, ""), ("X", "http://10.0.0.3:1"))[0] == Address("10.0.0.3", 1)
    assert where("10.0.0.1", (NAME, "http://10.0.0.2:1"), ("X", "http://10.0.0.3:1"))[0] == Address("10.0.0.2", 1)
    found, warnings = where("10.0.0.1", (NAME, "nonsense"), ("X", "http://10.0.0.3:1"))
    assert found == Address("10.0.0.3", 1) and len(warnings) == 1


@pytest.mark.fz("FZ-133")
def test_a_token_that_must_not_travel_in_clear_does_not() -> None:
    found, (warning,) = where("10.0.0.1", (NAME, "https://10.0.0.1:9696"))
    assert found is None and "freezing is off" in warning


def test_there_may_be_no_freezer() -> None:
    assert where("10.0.0.1", (NAME, "off")) == (None, [])
    assert where("") == (None, [])
    found, (warning,) = where("not an address")
    assert found is None and "HOST_IP" in warning

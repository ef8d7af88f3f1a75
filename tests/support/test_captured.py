"""The captured inputs, read as the process would have seen them."""

import pytest

from tests.support import captured


@pytest.mark.parametrize("name", captured.each_name())
def test_every_reference_is_resolved(name: str) -> None:
    case = captured.case(name)
    assert {variable["name"] for variable in case.container["env"]} == set(case.env)
    assert case.env["SERVING_POD"] == case.pod["metadata"]["name"] != ""
    assert case.env["HOST_IP"] == case.pod["status"]["hostIP"] != ""
    assert case.user_port == int(case.env["USER_PORT"])


def test_the_kubelets_probe_is_the_users_with_another_handler() -> None:
    probe = captured.case("01-default").kubelet_probe
    assert probe is not None
    assert probe["httpGet"]["httpHeaders"] == [{"name": "K-Network-Probe", "value": "queue"}]


def test_a_case_that_was_not_captured_skips_with_its_reason() -> None:
    with pytest.raises(pytest.skip.Exception, match="not on this machine"):
        captured.case("99-no-such-case")

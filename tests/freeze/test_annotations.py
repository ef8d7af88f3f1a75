"""A pod's annotations: one wrong value never takes another one along, nor the pod."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.freeze.annotations import (
    DEFAULTS,
    PREFIX,
    Liveness,
    Mode,
    PodPolicy,
    parse,
    parse_duration,
    parse_podinfo,
)


def policy(**annotations: str) -> PodPolicy:
    found, warnings = parse({PREFIX + name.replace("_", "-"): value for name, value in annotations.items()}, DEFAULTS)
    assert warnings == []
    return found


@pytest.mark.fz("FZ-110")
@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1.0), ("250ms", 0.25), ("1m30s", 90.0), ("1.5h", 5400.0), (".5s", 0.5), ("0", 0.0), ("0s", 0.0),
     ("2us", 2e-6), ("2µs", 2e-6), ("3ns", 3e-9), ("1h1m1s1ms", 3661.001)],
)  # fmt: skip
def test_durations_are_gos(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.fz("FZ-110")
@pytest.mark.parametrize("text", ["", "1", "s", "-1s", "1 s", "1S", "1d", "1s ", "1e3s", "∞", "١s", "9999999999h", "."])
def test_what_is_no_duration_says_what_is(text: str) -> None:
    with pytest.raises(ValueError, match="a duration like"):
        parse_duration(text)


@pytest.mark.fz("FZ-110")
def test_every_annotation_sets_its_field_and_no_other() -> None:
    assert policy() == DEFAULTS
    assert policy(freeze="off") == DEFAULTS._replace(mode=Mode.OFF)
    assert policy(freeze="shadow").mode is Mode.SHADOW and policy(freeze="throttle").mode is Mode.THROTTLE
    assert policy(freeze_after=" 1s ") == DEFAULTS._replace(freeze_after_s=1.0)
    assert policy(freeze_after="off").freeze_after_s is None
    assert policy(throttle_after="300ms") == DEFAULTS._replace(throttle_after_s=0.3)
    assert policy(min_uptime="1m") == DEFAULTS._replace(min_uptime_s=60.0)
    assert policy(liveness="throttle") == DEFAULTS._replace(liveness=Liveness.THROTTLE)
    assert policy(deep_check="5m") == DEFAULTS._replace(deep_check_s=300.0) and policy(deep_check="off") == DEFAULTS
    assert (
        policy(server_timing="on") == DEFAULTS._replace(server_timing=True) and policy(server_timing="off") == DEFAULTS
    )
    assert policy(containers="b, a,,b") == DEFAULTS._replace(containers=("b", "a"))


@pytest.mark.fz("FZ-110")
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("deep-check", "1s", "'1s' is not a duration of 10s or more, or \"off\"; using off"),
        ("deep-check", "daily", "'daily' is not a duration like \"1s\", \"250ms\" or \"1m30s\", or \"off\"; using off"),
        ("server-timing", "yes", "'yes' is not one of on, off; using off"),
        ("freeze", "yes", "'yes' is not one of on, off, shadow, throttle; using on"),
        ("freeze-after", "soon", "'soon' is not a duration like \"1s\", \"250ms\" or \"1m30s\", or \"off\"; using 2s"),
        ("throttle-after", "-1s", "; using off"),
        ("min-uptime", "off", "'off' is not a duration"),
        ("liveness", "", "'' is not one of knock, shield, throttle; using knock"),
        ("containers", "a/b", "'a/b' is not a list of container names; using all containers"),
        ("containers", ",", "is not a list of container names"),
        ("reclaim-after", "5m", "only \"off\" is understood by this version; ignored"),
        ("heartbeat", "on", "only \"off\" is understood"),
        ("frezze", "on", "is not known; ignored"),
        ("liveness", "x" * 1000, "x…' is not one of"),
    ],
)  # fmt: skip
def test_a_wrong_value_costs_one_warning_and_leaves_the_default(name: str, value: str, words: str) -> None:
    found, warnings = parse({PREFIX + name: value, PREFIX + "freeze-after" * (name != "freeze-after"): "1s"}, DEFAULTS)
    assert found == DEFAULTS._replace(freeze_after_s=2.0 if name == "freeze-after" else 1.0)
    (warning,) = (warning for warning in warnings if PREFIX + name + " " in warning + " " or name in warning)
    assert words in warning and len(warning) < 250


def test_what_is_off_later_and_what_is_read_elsewhere_is_no_mistake() -> None:
    annotations = {"reclaim-after": "off", "heartbeat": " off", "freezer": "http://10.0.0.1:9696"}
    assert parse({PREFIX + name: value for name, value in annotations.items()}, DEFAULTS) == (DEFAULTS, [])
    assert parse({"serving.knative.dev/creator": "x", "sidecar.istio.io/inject": "y"}, DEFAULTS) == (DEFAULTS, [])


def test_the_shield_is_taken_for_a_knock_and_says_so() -> None:
    found, (warning,) = parse({PREFIX + "liveness": "shield"}, DEFAULTS)
    assert found.liveness is Liveness.SHIELD and '"knock" by this version' in warning


@given(st.dictionaries(st.text().map(lambda name: PREFIX + name) | st.text(), st.text()))
def test_no_annotations_can_stop_a_pod(annotations: dict[str, str]) -> None:
    found, _ = parse(annotations, DEFAULTS)
    assert isinstance(found, PodPolicy)


@pytest.mark.fz("FZ-110")
def test_podinfo_is_lines_of_quoted_values() -> None:
    text = 'a="1"\nb="two \\"quoted\\" \\\\ \\n \\u00e9 \\x41"\nbroken\nc=plain\nd="half\ne="a"b"\nf=""\ng="\\q"\n'
    assert parse_podinfo(text) == {"a": "1", "b": 'two "quoted" \\ \n é A', "f": ""}


@given(st.text())
def test_no_file_of_annotations_can_stop_a_pod(text: str) -> None:
    assert isinstance(parse_podinfo(text), dict)

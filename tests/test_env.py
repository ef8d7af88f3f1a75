"""Go's spelling of numbers and booleans, and its words when they are wrong; the expected values are strconv's."""

import pytest

from queueproxy.env import ConfigError, Environment, field_name, parse_bool, parse_float, parse_int, parse_port, quoted


@pytest.mark.qp("QP-022")
@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0), ("-0", 0), ("+7", 7), ("-7", -7), ("300", 300), ("010", 8), ("0o17", 15), ("0O17", 15), ("0b101", 5),
        ("0x1F", 31), ("0X1f", 31), ("00", 0), ("1_000", 1000), ("0_7", 7), ("0x_1f", 31), ("0b_1_1", 3),
        ("9223372036854775807", 2**63 - 1), ("-9223372036854775808", -(2**63)), ("-0x8000000000000000", -(2**63)),
    ],
)  # fmt: skip
def test_an_integer_in_any_form_of_go_is_read(text: str, number: int) -> None:
    assert parse_int(text) == number


@pytest.mark.qp("QP-022")
@pytest.mark.parametrize(
    "text",
    ["", "+", "-", " 1", "1 ", "abc", "1.0", "1e3", "0x", "0b", "08", "0b2", "0xg", "_1", "1_", "1__0", "0x1_", "--1",
     "+-1", "\u0661", "é", "1\n"],
    ids=repr,
)  # fmt: skip
def test_what_go_does_not_take_for_an_integer_is_refused_in_its_words(text: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_int(text)
    assert str(error.value) == f"strconv.ParseInt: parsing {quoted(text)}: invalid syntax"


@pytest.mark.parametrize(
    "text", ["9223372036854775808", "-9223372036854775809", "99999999999999999999", "99999999999999999999x"]
)
def test_an_integer_that_does_not_fit_is_out_of_range(text: str) -> None:
    # The last one as well: Go stops at the overflow and never sees the letter.
    with pytest.raises(ValueError) as error:
        parse_int(text)
    assert str(error.value) == f'strconv.ParseInt: parsing "{text}": value out of range'


@pytest.mark.qp("QP-022")
@pytest.mark.parametrize(
    ("texts", "value"), [("1 t T TRUE true True", True), ("0 f F FALSE false False", False)], ids=["true", "false"]
)
def test_the_twelve_booleans(texts: str, value: bool) -> None:
    assert {parse_bool(text) for text in texts.split()} == {value}


@pytest.mark.qp("QP-022")
@pytest.mark.parametrize("text", ["", "yes", "no", "tRUE", "TRue", "on", "2", " true", "-1"], ids=repr)
def test_no_other_boolean(text: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_bool(text)
    assert str(error.value) == f'strconv.ParseBool: parsing "{text}": invalid syntax'


@pytest.mark.parametrize(("text", "value"), [("0.1", 0.1), ("1", 1.0), ("1e-2", 0.01), (".5", 0.5)])
def test_a_fraction(text: str, value: float) -> None:
    assert parse_float(text) == value


@pytest.mark.parametrize("text", ["", "a", " 1", "1 ", "1_0"], ids=repr)
def test_not_a_fraction(text: str) -> None:
    with pytest.raises(ValueError, match=r"strconv\.ParseFloat"):
        parse_float(text)


@pytest.mark.parametrize(("text", "port"), [("1", 1), ("8012", 8012), ("65535", 65535), ("08012", 8012)])
def test_a_port(text: str, port: int) -> None:
    assert parse_port(text) == port


@pytest.mark.parametrize(
    "text", ["", "0", "65536", "-1", "http", " 80", "80 ", "\u0668\u0660", "0x50", "000080"], ids=repr
)
def test_not_a_port(text: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_port(text)
    assert str(error.value) == f"{quoted(text)} is not a port number between 1 and 65535"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", '"plain"'), ('a"b\\', '"a\\"b\\\\"'), ("\x01\t\n\x7f", '"\\x01\\t\\n\\x7f"'), ("é😀", '"é😀"'),
        ("\u200b", '"\\u200b"'), ("\U000e0001", '"\\U000e0001"'), ("a\udcffb", '"a\\xffb"'), ("", '""'),
    ],
    ids=["plain", "quotes", "control", "printable", "invisible", "far plane", "stray byte", "empty"],
)  # fmt: skip
def test_quoting_makes_everything_visible(text: str, shown: str) -> None:
    assert quoted(text) == shown


@pytest.mark.parametrize(
    ("variable", "field"),
    [
        ("CONTAINER_CONCURRENCY", "ContainerConcurrency"),
        ("QUEUE_SERVING_TLS_PORT", "QueueServingTLSPort"),
        ("ENABLE_HTTP2_AUTO_DETECTION", "EnableHTTP2AutoDetection"),
        ("ENABLE_HTTP_FULL_DUPLEX", "EnableHTTPFullDuplex"),
        ("SERVING_POD_IP", "ServingPodIP"),
    ],
)
def test_the_name_of_the_go_field(variable: str, field: str) -> None:
    assert field_name(variable) == field


@pytest.mark.qp("QP-010", "QP-022")
def test_every_complaint_is_collected_in_reading_order() -> None:
    env = Environment({"COUNT": "many", "SWITCH": "", "DOOR": "0"})
    assert env.integer("COUNT", default=3) == 3
    assert env.text("NAME", required=True, default="x") == "x"
    assert env.boolean("SWITCH") is False
    assert env.port("DOOR") == 0
    with pytest.raises(ConfigError) as error:
        env.finish()
    assert error.value.lines == (
        "envconfig.Process: assigning COUNT to Count: converting 'many' to type int. "
        'details: strconv.ParseInt: parsing "many": invalid syntax',
        "required key NAME missing value",
        "envconfig.Process: assigning SWITCH to Switch: converting '' to type bool. "
        'details: strconv.ParseBool: parsing "": invalid syntax',
        "envconfig.Process: assigning DOOR to Door: converting '0' to type port. "
        'details: "0" is not a port number between 1 and 65535',
    )
    assert str(error.value) == "\n".join(error.value.lines)


def test_absent_and_optional_is_the_default() -> None:
    env = Environment({})
    assert (env.text("A"), env.integer("B"), env.boolean("C"), env.fraction("D"), env.port("E", default=9)) == (
        "", 0, False, 0.0, 9,
    )  # fmt: skip
    assert "A" not in env
    env.finish()


@pytest.mark.qp("QP-021")
def test_empty_satisfies_required_text_only() -> None:
    env = Environment({"TEXT": "", "NUMBER": ""})
    assert env.text("TEXT", required=True) == ""
    env.finish()
    env.integer("NUMBER", required=True)
    assert len(env.wrong) == 1 and "converting '' to type int" in env.wrong[0]
    assert repr(env) == "<Environment 2 variables, 1 wrong>"

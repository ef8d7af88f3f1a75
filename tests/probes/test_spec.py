from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.probes.spec import (
    MAX_SERVICE,
    Exec,
    Grpc,
    HttpGet,
    NoHandler,
    ProbeSpec,
    ProbeSpecError,
    TcpSocket,
    decode,
)

LOCAL = "127.0.0.1"


def one(probe: dict[str, Any]) -> ProbeSpec:
    (spec,) = decode(json.dumps(probe), multi=False)
    return spec


def get(**http: Any) -> HttpGet:
    handler = one({"httpGet": {"port": 80, **http}}).handler
    assert isinstance(handler, HttpGet)
    return handler


# What the controller of a real Knative wrote into Deployments, word for word.
CAPTURED = {
    "default": (
        '{"tcpSocket":{"port":8080,"host":"127.0.0.1"},"successThreshold":1}',
        ProbeSpec(TcpSocket(LOCAL, 8080)),
    ),
    "tcp": (
        '{"tcpSocket":{"port":8080,"host":"127.0.0.1"},"timeoutSeconds":1,"periodSeconds":2,'
        '"successThreshold":1,"failureThreshold":3}',
        ProbeSpec(TcpSocket(LOCAL, 8080), period_for=2.0, timeout_for=1.0),
    ),
    "http": (
        '{"httpGet":{"path":"/healthz","port":8080,"host":"127.0.0.1","scheme":"HTTP","httpHeaders":'
        '[{"name":"X-Probe","value":"yes"},{"name":"Host","value":"probe.example"}]},"initialDelaySeconds":1,'
        '"timeoutSeconds":2,"periodSeconds":3,"successThreshold":2,"failureThreshold":5}',
        ProbeSpec(
            HttpGet(LOCAL, 8080, False, "/healthz", (("X-Probe", "yes"), ("Host", "probe.example"))),
            period_for=3.0,
            timeout_for=2.0,
            success_threshold=2,
        ),
    ),
    "grpc": (
        '{"grpc":{"port":8080,"service":""},"timeoutSeconds":1,"periodSeconds":2,"successThreshold":1,"failureThreshold":3}',
        ProbeSpec(Grpc(8080, ""), period_for=2.0, timeout_for=1.0),
    ),
}


@pytest.mark.qp("QP-251")
@pytest.mark.parametrize("text, wanted", CAPTURED.values(), ids=CAPTURED)
def test_what_a_controller_writes_decodes(text: str, wanted: ProbeSpec) -> None:
    assert decode(text, multi=False) == (wanted,)


@pytest.mark.qp("QP-251")
def test_a_controllers_array_decodes_in_order() -> None:
    text = (
        '[{"httpGet":{"path":"/healthz","port":8881,"host":"127.0.0.1","scheme":"HTTP"},"timeoutSeconds":1,'
        '"periodSeconds":2,"successThreshold":1,"failureThreshold":3},'
        '{"tcpSocket":{"port":8883,"host":"127.0.0.1"},"successThreshold":1}]'
    )
    first, second = decode(text, multi=True)
    assert first == ProbeSpec(HttpGet(LOCAL, 8881, False, "/healthz", ()), period_for=2.0, timeout_for=1.0)
    assert second == ProbeSpec(TcpSocket(LOCAL, 8883))
    assert (first.aggressive, second.aggressive) == (False, True)


@pytest.mark.qp("QP-250", "QP-268")
@pytest.mark.parametrize(
    "text, multi",
    [("", False), ("", True), ("  \n", False), ("[]", True), ("[null]", True), ("[null,null]", True), ("null", False)],
)
def test_nothing_to_probe_decodes_to_no_probes(text: str, multi: bool) -> None:
    assert decode(text, multi=multi) == ()


@pytest.mark.qp("QP-268")
def test_a_null_entry_is_absent_and_its_neighbours_stay() -> None:
    assert decode('[null,{"tcpSocket":{"port":1}}]', multi=True) == (ProbeSpec(TcpSocket(LOCAL, 1)),)


@pytest.mark.qp("QP-251")
@pytest.mark.parametrize(
    "text, multi, complaint",
    [
        ('"a string"', False, "must be a probe object, is a string"),
        ("[]", False, "must be a probe object, is an array"),
        ("true", False, "must be a probe object, is a boolean"),
        ("{}", True, "must be an array of probes, is an object"),
        ("7", True, "must be an array of probes, is a number"),
        ("[[]]", True, "[0] must be a probe object, is an array"),
        ('[null,"x"]', True, "[1] must be a probe object, is a string"),
        ("{", False, "not JSON: "),
        ("{}x", False, "not JSON: "),
        ("[" * 100_000, True, "not JSON: "),
    ],
    ids=lambda x: x[:12] if isinstance(x, str) else None,
)
def test_a_wrong_shape_says_what_is_wrong(text: str, multi: bool, complaint: str) -> None:
    with pytest.raises(ProbeSpecError) as caught:
        decode(text, multi=multi)
    assert str(caught.value).startswith(complaint)


@pytest.mark.qp("QP-252")
@pytest.mark.parametrize("handler", ["tcpSocket", "httpGet", "grpc"])
@pytest.mark.parametrize("port, wanted", [(8080, 8080), ("8080", 8080), (1, 1), ("65535", 65535)])
def test_ports_are_numbers_or_numeric_strings(handler: str, port: object, wanted: int) -> None:
    found = one({handler: {"port": port}}).handler
    assert isinstance(found, TcpSocket | HttpGet | Grpc)
    assert found.port == wanted


@pytest.mark.qp("QP-252")
@pytest.mark.parametrize("port", [0, -1, 65536, "", "0", "http", "8080 ", "٣", 80.5, True, None, [80]], ids=repr)
def test_what_is_no_port_is_refused_by_name(port: object) -> None:
    with pytest.raises(ProbeSpecError, match=r"^tcpSocket\.port must be a port number"):
        one({"tcpSocket": {"port": port}})


def test_the_complaint_names_the_entry_of_an_array() -> None:
    with pytest.raises(ProbeSpecError, match=r"^\[1\]\.grpc\.port "):
        decode('[{"tcpSocket":{"port":1}},{"grpc":{}}]', multi=True)


@pytest.mark.parametrize(
    "probe, complaint",
    [
        ({"tcpSocket": []}, "tcpSocket must be an object, is an array"),
        ({"periodSeconds": "1"}, "periodSeconds must be a whole number, is a string"),
        ({"periodSeconds": 1.5}, "periodSeconds must be a whole number, is a number"),
        ({"periodSeconds": True}, "periodSeconds must be a whole number, is a boolean"),
        ({"timeoutSeconds": -1}, "timeoutSeconds is out of range: -1"),
        ({"httpGet": {"port": 1, "path": 1}}, "httpGet.path must be a string, is a number"),
        ({"httpGet": {"port": 1, "scheme": "FTP"}}, "httpGet.scheme must be HTTP or HTTPS, is 'FTP'"),
        ({"httpGet": {"port": 1, "host": "a b"}}, "httpGet.host is no host name: 'a b'"),
        ({"httpGet": {"port": 1, "httpHeaders": {}}}, "httpGet.httpHeaders must be an array, is an object"),
        ({"httpGet": {"port": 1, "httpHeaders": ["a"]}}, "httpGet.httpHeaders[0] must be an object, is a string"),
        ({"httpGet": {"port": 1, "httpHeaders": [{}]}}, "httpGet.httpHeaders[0].name is no header name: ''"),
        (
            {"httpGet": {"port": 1, "httpHeaders": [{"name": "A"}, {"name": "B:"}]}},
            "httpGet.httpHeaders[1].name is no header name: 'B:'",
        ),
        (
            {"httpGet": {"port": 1, "httpHeaders": [{"name": "A", "value": "x\r\nEvil: 1"}]}},
            "httpGet.httpHeaders[0].value holds a control character",
        ),
        ({"grpc": {"port": 1, "service": "x" * (MAX_SERVICE + 1)}}, "grpc.service is longer than 16000 bytes"),
    ],
    ids=lambda x: x[:40] if isinstance(x, str) else "",
)
def test_a_wrong_field_is_named(probe: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ProbeSpecError) as caught:
        one(probe)
    assert str(caught.value) == complaint


def test_absent_and_null_fields_are_zero_and_unknown_ones_are_ignored() -> None:
    spec = one({"httpGet": {"port": 1, "httpHeaders": None, "scheme": None}, "timeoutSeconds": None, "new": {"x": 1}})
    assert spec == ProbeSpec(HttpGet(LOCAL, 1, False, "/", ()))
    assert spec.aggressive and spec.timeout_for == 0.0 and spec.success_threshold == 1


def test_a_zero_success_threshold_still_takes_one_success() -> None:
    assert one({"tcpSocket": {"port": 1}, "successThreshold": 0}).success_threshold == 1


@pytest.mark.qp("QP-267")
@pytest.mark.parametrize(
    "probe, handler",
    [({"exec": {"command": ["true"]}}, Exec()), ({}, NoHandler()), ({"periodSeconds": 1}, NoHandler())],
    ids=["exec", "empty", "none"],
)
def test_what_cannot_be_probed_decodes_all_the_same(probe: dict[str, Any], handler: object) -> None:
    assert one(probe).handler == handler


@pytest.mark.qp("QP-261")
@pytest.mark.parametrize(
    "path, target",
    [
        ("", "/"),
        ("/", "/"),
        ("/healthz?x=1", "/healthz?x=1"),
        ("abc?q=1", "/abc?q=1"),
        ("//abc", "//abc"),
        ("/a#fragment", "/a"),
        ("/a b", "/a%20b"),
        ("/a\r\nX: y", "/a%0D%0AX:%20y"),
        ("/ü", "/%C3%BC"),
        ("/%C3%bc", "/%C3%bc"),
        ("/100%", "/100%25"),
        ("/100%zz", "/100%25zz"),
        ("/a\ud800", "/a%EF%BF%BD"),
        ('/q?f={"a":[1]}', "/q?f=%7B%22a%22:[1]%7D"),
    ],
)
def test_the_target_is_a_slash_and_the_path_without_one(path: str, target: str) -> None:
    assert get(path=path).target == target


@given(st.text())
def test_no_path_breaks_out_of_the_request_line(path: str) -> None:
    target = get(path=path).target
    assert target.startswith("/")
    assert target.isascii() and target.isprintable() and " " not in target


@given(st.text(), st.text())
def test_no_header_breaks_out_of_its_line(name: str, value: str) -> None:
    try:
        handler = get(httpHeaders=[{"name": name, "value": value}])
    except ProbeSpecError:
        return
    ((got_name, got_value),) = handler.headers
    assert got_name == name and got_name.isascii() and not set(got_name) & set(" :\r\n")
    assert not set(got_value.encode()) & set(b"\r\n\0")


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["httpGet", "tcpSocket", "grpc", "exec", "port", "path", "x"]), inner)
        ),
    ),
    st.booleans(),
)
def test_any_json_decodes_or_is_refused(value: object, multi: bool) -> None:
    try:
        assert isinstance(decode(json.dumps(value), multi=multi), tuple)
    except ProbeSpecError as error:
        assert str(error)


@pytest.mark.parametrize("host, wanted", [("", LOCAL), ("::1", "::1"), ("[::1]", "::1"), ("app.local", "app.local")])
def test_the_host_defaults_to_loopback(host: str, wanted: str) -> None:
    assert get(host=host).host == wanted


def test_the_grpc_host_is_always_loopback() -> None:
    handler = one({"grpc": {"port": 1, "host": "elsewhere"}}).handler
    assert isinstance(handler, Grpc) and handler.host == LOCAL


@pytest.mark.parametrize("scheme, tls", [("", False), ("HTTP", False), ("http", False), ("HTTPS", True)])
def test_the_scheme_decides_tls(scheme: str, tls: bool) -> None:
    assert get(scheme=scheme).tls is tls


@pytest.mark.parametrize(
    "handlers, kind",
    [
        ({"httpGet": {"port": 1}, "tcpSocket": {"port": 1}, "grpc": {"port": 1}, "exec": {}}, HttpGet),
        ({"tcpSocket": {"port": 1}, "grpc": {"port": 1}, "exec": {}}, TcpSocket),
        ({"grpc": {"port": 1}, "exec": {}}, Grpc),
    ],
    ids=["http", "tcp", "grpc"],
)
def test_of_several_handlers_the_first_in_gos_order_counts(handlers: dict[str, Any], kind: type) -> None:
    assert isinstance(one(handlers).handler, kind)

"""What QUEUE_PROXY_TLS_* mean, and Go's words for what they cannot mean."""

import pytest

from queueproxy.config import TlsSettings
from queueproxy.net.tlsterms import SUITES, SUITES_13, BadTerms, Terms, decode

EVERY = tuple(SUITES.values())
RSA_128 = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"

GOOD = {
    "nothing": (TlsSettings(), Terms("1.3", "1.3", EVERY, ())),
    "older clients": (TlsSettings(min_version="1.2"), Terms("1.2", "1.3", EVERY, ())),
    "both versions": (TlsSettings("1.3", "1.3"), Terms("1.3", "1.3", EVERY, ())),
    "a maximum below the minimum": (TlsSettings(max_version="1.2"), Terms("1.3", "1.2", EVERY, ())),
    "only 1.2": (TlsSettings("1.2", "1.2"), Terms("1.2", "1.2", EVERY, ())),
    "one suite": (
        TlsSettings("1.2", "", RSA_128),
        Terms("1.2", "1.3", ("ECDHE-RSA-AES128-GCM-SHA256",), ()),
    ),
    "blanks and empty items": (
        TlsSettings("1.2", "", f" ,{RSA_128} ,, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,"),
        Terms("1.2", "1.3", ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305"), ()),
    ),
    "nothing but commas": (TlsSettings("1.2", "", ", ,", " , "), Terms("1.2", "1.3", EVERY, ())),
    "suites of 1.3 do not count": (
        TlsSettings("1.2", "", f"TLS_AES_128_GCM_SHA256,{RSA_128}"),
        Terms("1.2", "1.3", ("ECDHE-RSA-AES128-GCM-SHA256",), ()),
    ),
    "suites of 1.3 alone leave 1.2 without any": (
        TlsSettings("1.2", "", "TLS_AES_128_GCM_SHA256"),
        Terms("1.3", "1.3", (), ()),
    ),
    "curves by either name, once": (
        TlsSettings(curve_preferences="X25519, CurveP256 ,P-256,P-521"),
        Terms("1.3", "1.3", EVERY, ("X25519", "P-256", "P-521")),
    ),
    "post-quantum": (
        TlsSettings(curve_preferences="X25519MLKEM768,CurveP384"),
        Terms("1.3", "1.3", EVERY, ("X25519MLKEM768", "P-384")),
    ),
}


@pytest.mark.qp("QP-321", "QP-328")
@pytest.mark.parametrize(("settings", "terms"), GOOD.values(), ids=GOOD.keys())
def test_what_is_asked_for(settings: TlsSettings, terms: Terms) -> None:
    assert decode(settings) == terms


VERSION = 'invalid QUEUE_PROXY_TLS_{0}_VERSION {1}: unsupported TLS version {1}: must be "1.2" or "1.3"'
BAD = {
    "1.0": (TlsSettings(min_version="1.0"), VERSION.format("MIN", '"1.0"')),
    "1.1 at most": (TlsSettings(max_version="1.1"), VERSION.format("MAX", '"1.1"')),
    "Go's constant": (TlsSettings(min_version="VersionTLS12"), VERSION.format("MIN", '"VersionTLS12"')),
    "a blank behind it": (TlsSettings(min_version="1.2 "), VERSION.format("MIN", '"1.2 "')),
    "a blank": (TlsSettings(max_version=" "), VERSION.format("MAX", '" "')),
    "a quote": (TlsSettings(min_version='1."3'), VERSION.format("MIN", '"1.\\"3"')),
    "unknown suite": (
        TlsSettings(cipher_suites=f"{RSA_128},NOT_A_REAL_CIPHER"),
        'invalid QUEUE_PROXY_TLS_CIPHER_SUITES: unknown cipher suite "NOT_A_REAL_CIPHER"',
    ),
    "OpenSSL's name": (
        TlsSettings(cipher_suites="ECDHE-RSA-AES128-GCM-SHA256"),
        'invalid QUEUE_PROXY_TLS_CIPHER_SUITES: unknown cipher suite "ECDHE-RSA-AES128-GCM-SHA256"',
    ),
    "what Go holds for insecure": (
        TlsSettings(cipher_suites="TLS_RSA_WITH_AES_128_GCM_SHA256"),
        'invalid QUEUE_PROXY_TLS_CIPHER_SUITES: unknown cipher suite "TLS_RSA_WITH_AES_128_GCM_SHA256"',
    ),
    "lower case": (
        TlsSettings(cipher_suites=RSA_128.lower()),
        f'invalid QUEUE_PROXY_TLS_CIPHER_SUITES: unknown cipher suite "{RSA_128.lower()}"',
    ),
    "OpenSSL's own grammar": (
        TlsSettings(cipher_suites="ALL:@SECLEVEL=0"),
        'invalid QUEUE_PROXY_TLS_CIPHER_SUITES: unknown cipher suite "ALL:@SECLEVEL=0"',
    ),
    "unknown curve": (
        TlsSettings(curve_preferences="X25519,CurveP128"),
        'invalid QUEUE_PROXY_TLS_CURVE_PREFERENCES: unknown curve "CurveP128"',
    ),
    "the first of many": (TlsSettings("0", "0", "x", "x"), VERSION.format("MIN", '"0"')),
}


@pytest.mark.qp("QP-321", "QP-328")
@pytest.mark.parametrize(("settings", "words"), BAD.values(), ids=BAD.keys())
def test_what_nobody_can_mean(settings: TlsSettings, words: str) -> None:
    with pytest.raises(BadTerms) as caught:
        decode(settings)
    assert str(caught.value) == words


def test_no_suite_is_of_two_versions() -> None:
    assert not SUITES_13 & SUITES.keys()
    assert len(set(EVERY)) == len(EVERY) == 10

"""Opens a way to OpenSSL's list of key exchange groups ("curves"), which `ssl` offers from Python 3.15 only.

Before that, `SSLContext.set_ecdh_curve` takes a single one. A list goes through libssl itself, in the library that
`_ssl` is linked with: `SSL_CTX_ctrl(SSL_CTRL_SET_GROUPS_LIST)` on the SSL_CTX that a context object holds right after
its object header, as in every CPython from 2.6 to 3.14. Where that way is closed (another interpreter, a libssl that
shows no symbols) only the first of the wanted curves is set: never one that nobody asked for.
"""

from __future__ import annotations

import ctypes
import ssl
import sys
from collections.abc import Sequence
from typing import Any, Final

_SET_GROUPS_LIST: Final = 92  # SSL_CTRL_SET_GROUPS_LIST, openssl/ssl.h
_ONE: Final = {"P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1"}  # set_ecdh_curve's names


class NoSuchGroup(Exception):
    """The library knows none of them."""


def allow(context: ssl.SSLContext, wanted: Sequence[str]) -> tuple[str, ...]:
    """Only these may be used from now on; those that could be set. Raises NoSuchGroup when none could."""
    known = tuple(name for name in wanted if _is_known(name))
    if not known:
        raise NoSuchGroup(f"{ssl.OPENSSL_VERSION} knows no curve {', '.join(wanted)}")
    if len(known) > 1 and _set(context, known):
        return known
    context.set_ecdh_curve(_ONE.get(known[0], known[0]))
    return known[:1]


def _is_known(name: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ecdh_curve(_ONE.get(name, name))
    except (ValueError, ssl.SSLError):
        return False
    return True


def _set(context: ssl.SSLContext, names: Sequence[str]) -> bool:
    groups = ":".join(names)
    newer: Any = getattr(context, "set_groups", None)
    if newer is not None:
        newer(groups)
        return True
    control = _control()
    if control is None:
        return False
    held = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
    return bool(control(held, _SET_GROUPS_LIST, 0, groups.encode()) == 1)


def _control() -> Any:
    """SSL_CTX_ctrl of the libssl that `ssl` uses; None where it cannot be called on a context."""
    if sys.implementation.name != "cpython" or sys.version_info >= (3, 15):
        return None
    try:
        import _ssl

        # Found through `_ssl` itself, because another libssl may be loaded as well.
        control = ctypes.CDLL(_ssl.__file__).SSL_CTX_ctrl
    except (ImportError, AttributeError, OSError):
        return None
    control.restype = ctypes.c_long
    control.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p)
    return control

"""Opens the way for many connections: the soft limit on descriptors goes up to the hard one, as Go's runtime does.

Runtimes and systemd start processes with 1,024 for the sake of select(2), which nothing here uses. A request holds two
descriptors, so 500 clients would be the end of it.
"""

from __future__ import annotations

import resource


def raise_limit() -> int:
    """Descriptors this process may hold from now on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return soft  # above what the kernel allows nowadays, or forbidden: serve with what there is
    return hard

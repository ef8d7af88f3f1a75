"""Names where a request is. Stages only grow."""

from __future__ import annotations

from enum import IntEnum


class Stage(IntEnum):
    """Where the request is."""

    NEW = 0
    QUEUED = 1  # waits for a slot
    ASLEEP = 2  # waits for the thaw
    DIALLING = 3
    SENT = 4  # the head is with the app, no final answer came back
    ANSWERED = 5  # the client has, or will have, a final head
    TUNNELLED = 6
    DONE = 7


NEW, QUEUED, ASLEEP, DIALLING, SENT, ANSWERED, TUNNELLED, DONE = Stage

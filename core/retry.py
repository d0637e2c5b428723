"""What to do when an attempt fails: one table, read by `proxy/upstream/attempt.py`.

Rows are (phase, stale) -> decision. Two things hold over every row: after a byte has gone to the client nothing
is tried again, and a body that was streamed through cannot be sent a second time.
"""

from enum import Enum

from penstock.core.errors import BackendError, Phase


class Decision(Enum):
    GIVE_UP = "give up"
    NEW_CONNECTION = "same target, new connection"
    NEXT_TARGET = "next target"


# A pooled connection that dies before a byte of answer says that the backend had closed it while it was idle:
# nobody's error, and the request was not worked on (RFC 9112 §9.3.1). Connect errors have tried every address
# of the name before they get here, so only another target can help.
TABLE: dict[tuple[Phase, bool], Decision] = {
    ("connect", False): Decision.NEXT_TARGET,
    ("send", True): Decision.NEW_CONNECTION,
    ("send", False): Decision.GIVE_UP,
    ("first_byte", True): Decision.NEW_CONNECTION,
    ("first_byte", False): Decision.GIVE_UP,
    ("status", False): Decision.GIVE_UP,
    ("body", False): Decision.GIVE_UP,
}


def decide(error: BackendError, *, replayable: bool, targets_left: int) -> Decision:
    """What follows `error`, before any byte has gone to the client.

    replayable: the request's body is still held and can be sent again.
    targets_left: targets of the plan not tried yet.
    """
    decision = TABLE.get((error.phase, error.stale), Decision.GIVE_UP)
    if not replayable and error.phase != "connect":
        return Decision.GIVE_UP
    if decision is Decision.NEXT_TARGET and targets_left == 0:
        return Decision.GIVE_UP
    return decision

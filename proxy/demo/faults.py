"""Everything that can be made to go wrong, each fault a small change of the script of a right answer."""

from __future__ import annotations

from collections.abc import Callable

from penstock.proxy.demo import faults_http
from penstock.proxy.demo.answer import JSON_TYPE, Refused
from penstock.proxy.demo.fault import Fault, truncate
from penstock.proxy.demo.script import Ending, Framing, Script

REDIRECT_TARGET = "/demo/redirected"
"""Faults never hit /demo/…, so a client that follows gets an answer that shows it."""
_MAX_NUMBER = 100_000_000  # of bytes, tokens, ms


def parse_fault(text: str) -> Fault | None:
    """`name[=number][;after=N][;retry-after=S]`; empty or `none` is no fault; Refused when it is unknown."""
    if text in ("", "none"):
        return None
    first, *rest = [part.strip() for part in text.split(";")]
    name, _, value = first.partition("=")
    if name not in FAULTS:
        raise Refused(400, f"no such fault: {name!r}; known: {', '.join(FAULTS)}", param="x-demo-fault")
    settings = dict(part.partition("=")[::2] for part in rest)
    after, retry_after = settings.pop("after", ""), settings.pop("retry-after", None)
    if settings:
        raise Refused(400, f"no such setting of a fault: {', '.join(settings)}", param="x-demo-fault")
    fault = Fault(name, _number(value), _number(after), retry_after)
    code = fault.value or (413 if name == "early" else 0)
    if name in ("status", "early") and not 200 <= code <= 599:
        raise Refused(400, f"{name} needs a code from 200 to 599: {name}=503", param="x-demo-fault")
    return fault


def _number(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= _MAX_NUMBER):
        raise Refused(400, f"a fault's number is whole and up to {_MAX_NUMBER}: {text!r}", param="x-demo-fault")
    return int(text)


def apply(fault: Fault, script: Script) -> None:
    FAULTS[fault.name](script, fault)


def leaves_answer_alone(fault: Fault) -> bool:
    return FAULTS[fault.name] is _nothing


def _nothing(script: Script, fault: Fault) -> None:
    """Happens elsewhere: nofinish where the answer is made, early and idleclose in the connection."""


def _status(script: Script, fault: Fault) -> None:
    extra = [("Retry-After", fault.retry_after)] if fault.retry_after else []
    script.fail(fault.value or 500, extra)


def _redirect(script: Script, fault: Fault) -> None:
    script.fail(307, [("Location", REDIRECT_TARGET)])


def _silent(ending: Ending) -> Callable[[Script, Fault], None]:
    def change(script: Script, fault: Fault) -> None:
        script.silent = True
        script.ending = ending

    return change


def _truncated(ending: Ending) -> Callable[[Script, Fault], None]:
    def change(script: Script, fault: Fault) -> None:
        truncate(script, fault)
        script.ending = ending

    return change


def _noend(script: Script, fault: Fault) -> None:
    truncate(script, fault)
    script.framing = Framing.CHUNKED


def _nodone(script: Script, fault: Fault) -> None:
    script.end_mark = b""


def _inband(script: Script, fault: Fault) -> None:
    if script.streamed:
        truncate(script, fault)
        script.closing = (script.error,)
    else:
        script.set_body(script.error, JSON_TYPE)


FAULTS: dict[str, Callable[[Script, Fault], None]] = {
    "status": _status,
    "redirect": _redirect,
    "reset": _silent(Ending.RESET),
    "close": _silent(Ending.CLOSE),
    "never": _silent(Ending.STALL),
    "cut": _truncated(Ending.CLOSE),
    "rst": _truncated(Ending.RESET),
    "stall": _truncated(Ending.STALL),
    "noend": _noend,
    "nodone": _nodone,
    "nofinish": _nothing,
    "inband": _inband,
    "slowhead": faults_http.slowhead,
    "shortlength": faults_http.shortlength,
    "longlength": faults_http.longlength,
    "contentlength": faults_http.contentlength,
    "badchunk": faults_http.badchunk,
    "twoheads": faults_http.twoheads,
    "hugehead": faults_http.hugehead,
    "gzip": faults_http.gzip,
    "http10": faults_http.http10,
    "early": _nothing,
    "idleclose": _nothing,
}

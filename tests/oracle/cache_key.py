"""The obvious canonical form of a body: a real JSON parser, then one value of Python for all that mean the same."""

import json
import re
from decimal import Decimal
from typing import Any, NoReturn

LEFT_OUT = {"model", "stream", "stream_options", "user", "metadata"}
NUMBER = re.compile(r"(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?)0*(\d*))?")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _number(spelling: str) -> tuple[str, Any]:
    sign, whole, fraction, direction, power = NUMBER.fullmatch(spelling).groups(default="")  # type: ignore[union-attr]
    if not (whole + fraction).strip("0"):
        return ("number", 0)
    if len(power) > 18:
        return ("spelt", spelling)
    # Decimal keeps digits and exponent as they stand: nothing is rounded, however many there are.
    number = Decimal((bool(sign), tuple(map(int, whole + fraction)), 0))
    exponent = int(direction + (power or "0")) - len(fraction)
    while number.as_tuple().digits[-1] == 0:
        number = Decimal((bool(sign), number.as_tuple().digits[:-1], 0))
        exponent += 1
    return ("number", (number, exponent))


def _object(members: list[tuple[str, Any]]) -> tuple[str, Any]:
    return ("object", tuple(sorted(dict(members).items(), key=lambda member: member[0])))


def _tagged(value: Any) -> Any:
    """A value whose type cannot be mistaken: in Python True == 1."""
    if isinstance(value, list):
        return ("array", tuple(_tagged(item) for item in value))
    if isinstance(value, tuple):
        kind, content = value
        return (kind, tuple((key, _tagged(item)) for key, item in content)) if kind == "object" else value
    return (type(value).__name__, value)


def canonical(body: bytes) -> Any:
    """What the body means, comparable; None if it is not one JSON object."""
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_number,
            parse_float=_number,
            parse_constant=_refuse,
        )
    except ValueError:
        return None
    if not (isinstance(value, tuple) and value[0] == "object"):
        return None
    members = tuple(member for member in value[1] if member[0] not in LEFT_OUT)
    return _tagged(("object", members))

"""The obvious peek: a real JSON parser over the whole body, then the facts from what it built."""

import json
import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NoReturn

INT_MAX = 2**63 - 1
NUMBER = re.compile(r"(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?")


@dataclass(frozen=True)
class Number:
    """A number as it is spelt."""

    text: str


@dataclass
class Object:
    """An object with all its members, duplicates too."""

    members: list[tuple[str, Any]]

    def last(self, key: str) -> Any:
        return dict(self.members).get(key)


@dataclass
class Facts:
    model: str | None = None
    model_mistyped: bool = False
    models: list[Any] = field(default_factory=list)
    stream: bool | None = None
    max_output_tokens: int | None = None
    user: str | None = None
    include_usage: bool = False
    choices: int = 1


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def parse(body: bytes) -> Object | None:
    """The body as RFC 8259 reads it; None if it is not one object."""
    try:
        text = body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=Object, parse_constant=_refuse, parse_int=Number, parse_float=Number)
    except ValueError:
        return None
    return value if isinstance(value, Object) else None


def count(value: Any) -> int | None:
    """A number that is an integer from 0 to 2**63 - 1, however it is spelt."""
    if not isinstance(value, Number):
        return None
    sign, whole, fraction, power = NUMBER.fullmatch(value.text).groups(default="")  # type: ignore[union-attr]
    if not (whole + fraction).strip("0"):
        return 0
    exponent = int(power[:30] or "0")
    if sign or abs(exponent) > 2 * len(value.text) + 30:
        return None
    exact = Fraction(int(whole + fraction)) * Fraction(10) ** (exponent - len(fraction))
    return int(exact) if exact.denominator == 1 and exact <= INT_MAX else None


def text(value: Any) -> str | None:
    """A string of characters: half of a surrogate pair is none."""
    if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
        return None
    return value


def peek(body: bytes) -> Facts | None:
    found = parse(body)
    if found is None:
        return None
    models = [value for key, value in found.members if key == "model"]
    caps = [count(found.last(key)) for key in ("max_tokens", "max_completion_tokens", "max_output_tokens")]
    options = found.last("options")
    caps.append((count(options.last("num_predict")) or None) if isinstance(options, Object) else None)
    stream = found.last("stream")
    stream_options = found.last("stream_options")
    return Facts(
        model=text(found.last("model")),
        model_mistyped=bool(models) and text(models[-1]) is None,
        models=models,
        stream=stream if isinstance(stream, bool) else None,
        max_output_tokens=min((cap for cap in caps if cap is not None), default=None),
        user=text(found.last("user")),
        include_usage=isinstance(stream_options, Object) and stream_options.last("include_usage") is True,
        choices=max(count(found.last("n")) or 1, count(found.last("best_of")) or 1),
    )

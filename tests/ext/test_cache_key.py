"""cache_key: equal for two bodies if and only if their canonical forms are."""

import json
import random
import re
from typing import Any

import pytest
from hypothesis import given, settings

from oracle import cache_key as oracle
from oracle.bodies import BODIES, NUMBERS
from penstock.ext import JsonError, cache_key, peek


def key(body: bytes, scope: bytes = b"tenant", model: bytes = b"m") -> bytes:
    return cache_key(body, scope, model)


def agree(one: bytes, other: bytes) -> None:
    """Both keys are the same just if both bodies mean the same."""
    forms = [oracle.canonical(body) for body in (one, other)]
    keys = []
    for body, form in zip((one, other), forms, strict=True):
        if form is None:
            with pytest.raises(JsonError) as found:
                key(body)
            with pytest.raises(JsonError, match=f"^{re.escape(str(found.value))}$"):
                peek(body)
        else:
            keys.append(key(body))
    if len(keys) == 2:
        assert (keys[0] == keys[1]) == (forms[0] == forms[1]), (one, other)


@settings(max_examples=100, deadline=None)
@given(BODIES, BODIES)
def test_any_two_bodies(one: bytes, other: bytes) -> None:
    agree(one, other)
    agree(one, one)


class Speller:
    """Writes one value in many ways that all mean it."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def space(self) -> str:
        return self.chance.choice(["", "", "", " ", "\n", "\t\r\n "])

    def string(self, text: str) -> str:
        return '"' + "".join(self.character(character) for character in text) + '"'

    def character(self, character: str) -> str:
        wide = character.encode("utf-16-be", "surrogatepass").hex()
        units = "".join(f"\\u{wide[at : at + 4]}" for at in range(0, len(wide), 4))
        plain = json.dumps(character, ensure_ascii=False)[1:-1]
        choices = [plain, plain, plain, units, units.upper().replace("\\U", "\\u")]
        return self.chance.choice([*choices, "\\/"] if character == "/" else choices)

    def number(self, number: int | float) -> str:
        if number == 0:
            return self.chance.choice(["0", "-0", "0.0", "0e7", "-0.00E-3"])
        digits = repr(number)
        if "e" in digits or "." in digits:
            return digits + self.chance.choice(["", "0" * ("e" not in digits), "e0" * ("e" not in digits)])
        return self.chance.choice([digits, digits + ".0", digits + "e0", digits + "0e-1", digits + ".00E+00"])

    def value(self, value: Any) -> str:
        if isinstance(value, dict):
            return self.object(value)
        if isinstance(value, list):
            items = [self.space() + self.value(item) + self.space() for item in value]
            return "[" + ",".join(items) + "]"
        if isinstance(value, str):
            return self.string(value)
        if isinstance(value, bool) or value is None:
            return json.dumps(value)
        return self.number(value)

    def object(self, value: dict[str, Any]) -> str:
        members = list(value.items())
        self.chance.shuffle(members)
        if members and self.chance.random() < 0.2:
            members.insert(0, (members[-1][0], self.chance.choice([None, 5, {"x": []}])))
        each = (self.space() + self.string(name) + self.space() + ":" + self.space() for name, _ in members)
        texts = [before + self.value(item) + self.space() for before, (_, item) in zip(each, members, strict=True)]
        return "{" + ",".join(texts) + "}"


def some_value(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.randrange(8 if depth < 4 else 6)
    match kind:
        case 0:
            return chance.choice([True, False, None])
        case 1:
            return chance.choice([0, 1, -1, 10, 100, 4096, 2**53 + 1, 10**30, chance.randrange(10**6)])
        case 2:
            return chance.choice([0.5, 0.7, 1e-9, 1.5e300, -2.25, chance.random()])
        case 3 | 4 | 5:
            letters = 'abc"\\/\n\t\x00\x1f\x7f é日😀\ud800\udc00\u2028'
            return "".join(chance.choice(letters) for _ in range(chance.choice([0, 1, 3, 12, 90])))
        case 6:
            return [some_value(chance, depth + 1) for _ in range(chance.randrange(5))]
    return {some_name(chance): some_value(chance, depth + 1) for _ in range(chance.randrange(6))}


def some_name(chance: random.Random) -> str:
    names = ["role", "content", "a", "b", "é", "", "user", "model", "stream", 'a"b', "a/b", "\ud800", "temperature"]
    return chance.choice(names)


def request(chance: random.Random) -> dict[str, Any]:
    return {
        "model": chance.choice(["m", "n"]),
        "messages": [{"role": "user", "content": some_value(chance)} for _ in range(chance.randint(1, 3))],
        "temperature": chance.choice([0, 0.7, 1]),
        some_name(chance): some_value(chance),
    }


def changed(chance: random.Random, value: Any) -> Any:
    """The same but for one thing in it."""
    if isinstance(value, dict) and value:
        name = chance.choice(list(value))
        return {**value, name: changed(chance, value[name])}
    if isinstance(value, list) and value:
        at = chance.randrange(len(value))
        return [*value[:at], changed(chance, value[at]), *value[at + 1 :]]
    return chance.choice([None, 1, -1, "", " ", str(value), [value], {"": value}, {}, [], True])


@pytest.mark.parametrize("seed", range(15))
def test_thousands_of_pairs(seed: int) -> None:
    """Spelt otherwise, with one thing changed, with one byte changed, or another altogether."""
    chance = random.Random(seed)
    speller = Speller(chance)
    for _ in range(150):
        value = request(chance)
        one, same, other = (speller.value(value) for _ in range(3))
        one, same = one.encode("utf-8", "replace"), same.encode("utf-8", "replace")
        agree(one, same)
        agree(one, speller.value(changed(chance, value)).encode("utf-8", "replace"))
        mutant = bytearray(other.encode("utf-8", "replace"))
        mutant[chance.randrange(len(mutant))] = chance.choice(b'0123456789eE+-."\\{}[]:, abc\xff')
        agree(one, bytes(mutant))
        agree(one, speller.value(request(chance)).encode("utf-8", "replace"))


def test_spellings_have_one_key() -> None:
    """Whatever the oracle says of them."""
    chance = random.Random(5)
    speller = Speller(chance)
    for _ in range(500):
        value = {"a": some_value(chance), "b": [some_value(chance)], "user": 1}
        texts = [speller.value(value) for _ in range(2)]
        if "\ud800" in "".join(texts) or "\udc00" in "".join(texts):
            continue
        assert key(texts[0].encode()) == key(texts[1].encode())


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers(number: str) -> None:
    for other in [*NUMBERS, "1e1000000000000000000", "10e999999999999999999", "1e999999999999999999999", '"1"']:
        agree(b'{"a":[%s]}' % number.encode(), b'{"a":[%s]}' % other.encode())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a":1}', b'{"a":1.0}'),
        (b'{"a":100}', b'{"a":1e2}'),
        (b'{"a":9007199254740993}', b'{"a":9007199254740993.0}'),
        (b'{"a":-0.0}', b'{"a":0}'),
        (b'{"a":"\\u00e9\\ud83d\\ude00"}', '{"a":"é😀"}'.encode()),
        (b'{"a":"\\u0022\\/"}', b'{"a":"\\"/"}'),
        (b'{"a":2,"a":1}', b'{"a":1}'),
        (b'{"\\u0061":2,"a":1}', b'{"a":1}'),
        (b'{"b":{"d":1,"c":[]},"a":0}', b' { "a" : 0 , "b" : { "c" : [ ] , "d" : 1 } } '),
        (b'{"a":1,"stream":true}', b'{"stream_options":{},"a":1,"user":"u","metadata":{},"model":5}'),
        (b'{"a":1,"\\u0073tream":true}', b'{"a":1}'),
        (b"{}", b'{"model":"x"}'),
    ],
)
def test_the_same(one: bytes, other: bytes) -> None:
    assert key(one) == key(other)
    agree(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a":1}', b'{"a":"1"}'),
        (b'{"a":1}', b'{"a":true}'),
        (b'{"a":9007199254740993}', b'{"a":9007199254740992}'),
        (b'{"a":0.1}', b'{"a":0.1000000000000000055511151231257827}'),
        (b'{"a":1,"a":2}', b'{"a":2,"a":1}'),
        (b'{"a":[1,2]}', b'{"a":[2,1]}'),
        (b'{"a":[1,2]}', b'{"a":[12]}'),
        (b'{"a":[[1],2]}', b'{"a":[[1,2]]}'),
        (b'{"a":{"stream":1}}', b'{"a":{}}'),
        (b'{"a":"\\ud800"}', b'{"a":"\\\\ud800"}'),
        (b'{"a":"e\\u0301"}', '{"a":"é"}'.encode()),
        (b'{"a":{"b":1},"c":2}', b'{"a":{"b":1,"c":2}}'),
        (b'{"a":""}', b'{"":"a"}'),
        (b'{"a":null}', b"{}"),
    ],
)
def test_not_the_same(one: bytes, other: bytes) -> None:
    assert key(one) != key(other)
    agree(one, other)


def test_scope_and_model_are_told_apart() -> None:
    keys = [cache_key(b'{"a":1}', *pair) for pair in [(b"", b"ab"), (b"a", b"b"), (b"ab", b""), (b"b", b"a")]]
    assert len(set(keys)) == 4
    assert all(len(found) == 32 for found in keys)


def test_one_byte_of_an_image() -> None:
    chance = random.Random(7)
    image = bytearray(chance.choices(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", k=300_000))
    part = b'{"type":"image_url","image_url":{"url":"data:image/png;base64,%s"}}'
    body = b'{"messages":[{"role":"user","content":[' + part + b"]}]}"
    places = {0, 1, 16_383, 16_384, 131_072, len(image) - 1, *chance.choices(range(len(image)), k=50)}
    keys = {key(body % image)}
    for at in places:
        image[at] ^= 1
        keys.add(key(body % image))
        image[at] ^= 1
    assert len(keys) == 1 + len(places)
    assert key(body % image) in keys


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b'{"a":1}x', b'{"a":\xff}', b'{"a":"\x00"}', b'{"a":01}', b"{,}"])
def test_what_is_no_object(body: bytes) -> None:
    with pytest.raises(JsonError):
        key(body)


def test_nesting_out_of_order_takes_no_longer() -> None:
    """1,000 levels, each out of order around 100 KB: moved at each level they would be 100 MB."""
    inner = b",".join(b'"%d":%d' % (at, at) for at in range(10_000, 0, -1))
    body = b'{"b":' * 999 + b"{" + inner + b"}" + b',"a":1}' * 999
    other = b'{"a":1,"b":' * 999 + b"{" + b",".join(sorted(inner.split(b","))) + b"}" + b"}" * 999
    assert key(body) == key(other)
    with pytest.raises(JsonError, match="nesting"):
        key(b'{"a":' * 1001 + b"1" + b"}" * 1001)

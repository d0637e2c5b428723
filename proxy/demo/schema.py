"""A value that fits a JSON schema, for the arguments of tool calls and structured answers."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_MAX_DEPTH = 12
_MAX_VALUES = 1000  # a schema that refers to itself twice would else double with each level
_MAX_LENGTH = 1000


def example(schema: Schema, word: str) -> Any:
    """The simplest fitting value; `word` is what strings say where nothing else is asked for."""
    return _Maker(schema, word).value(schema, 0)


class _Maker:
    def __init__(self, root: Schema, word: str) -> None:
        self._root = root
        self._word = word
        self._left = _MAX_VALUES

    def value(self, schema: Any, depth: int) -> Any:
        self._left -= 1
        if not isinstance(schema, dict) or depth > _MAX_DEPTH or self._left < 0:
            return None
        for fixed in ("const", "default"):
            if fixed in schema:
                return schema[fixed]
        choices = schema.get("enum")
        if isinstance(choices, list) and choices:
            return choices[0]
        inner = self._inner(schema)
        return self._of_type(schema, depth) if inner is None else self.value(inner, depth + 1)

    def _inner(self, schema: Schema) -> Any:
        """The schema this one stands for, None where it speaks for itself."""
        if isinstance(schema.get("$ref"), str):
            return self._resolve(schema["$ref"])
        for key in ("anyOf", "oneOf", "allOf"):
            if isinstance(schema.get(key), list) and schema[key]:
                return schema[key][0]
        return None

    def _resolve(self, pointer: str) -> Any:
        found: Any = self._root
        for step in pointer.removeprefix("#").split("/")[1:]:
            found = found.get(step) if isinstance(found, dict) else None
        return found

    def _of_type(self, schema: Schema, depth: int) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = kind[0] if kind else None
        properties = schema.get("properties")
        if kind == "object" or isinstance(properties, dict):
            inner = properties if isinstance(properties, dict) else {}
            return {name: self.value(each, depth + 1) for name, each in inner.items()}
        if kind == "array":
            item = self.value(schema.get("items", {"type": "string"}), depth + 1)
            return [item] * max(1, _length(schema, "minItems", 1))
        if kind == "string":
            return self._string(schema)
        if kind in ("integer", "number"):
            return schema.get("minimum", 1)
        return True if kind == "boolean" else None

    def _string(self, schema: Schema) -> str:
        word = self._word.ljust(_length(schema, "minLength", 0), ".")
        return word[: _length(schema, "maxLength", _MAX_LENGTH)]


def _length(schema: Schema, key: str, default: int) -> int:
    value = schema.get(key, default)
    return min(value, _MAX_LENGTH) if isinstance(value, int) and value >= 0 else default

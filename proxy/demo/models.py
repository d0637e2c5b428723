"""/v1/models: three models that are none."""

from __future__ import annotations

from urllib.parse import unquote

from penstock.proxy.demo.answer import Answer, Refused, json_answer
from penstock.proxy.demo.request import Request
from penstock.proxy.demo.state import Demo

MODELS = ("demo", "demo-large", "demo-embed")
_CREATED_S = 1_735_689_600  # 2025-01-01, the same at every start


def listing(request: Request, demo: Demo) -> Answer:
    return json_answer({"object": "list", "data": [_model(name) for name in MODELS]})


def one(request: Request, demo: Demo) -> Answer:
    name = unquote(request.path.removeprefix("/v1/models/"))
    if name not in MODELS:
        raise Refused(404, f"The model '{name}' does not exist", param="model", code="model_not_found")
    return json_answer(_model(name))


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": _CREATED_S, "owned_by": "penstock"}

"""GET /v1/models: the configured names and what backends report, and what happens to names nobody knows."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest
from raw_client import JSON_TYPE, ask, chat, request, wait_until

from running import Demo, Penstock, config, free_port

REPORTED = ["demo", "demo-large", "demo-embed"]


def listed(process: Penstock) -> list[str]:
    answer = ask(process.port, request("GET", "/v1/models"))
    assert answer.status == 200 and answer.json()["object"] == "list"
    return [model["id"] for model in answer.json()["data"]]


def test_configured_and_reported_names_are_listed_once(proxy: Penstock) -> None:
    names = listed(proxy)
    assert names == ["renamed", 'naïve "quoted"', "far", "lost", "rescued", *REPORTED]


def test_model_objects(proxy: Penstock, demo: Demo) -> None:
    """A reported one is the backend's own object, a configured one ours."""
    direct = ask(demo.port, request("GET", "/v1/models")).json()["data"]
    ours = {model["id"]: model for model in ask(proxy.port, request("GET", "/v1/models")).json()["data"]}
    assert [ours[model["id"]] for model in direct] == direct
    renamed = ours["renamed"]
    assert (renamed["object"], renamed["owned_by"]) == ("model", "penstock") and renamed["created"] > 1_700_000_000


@pytest.mark.parametrize("name", ["demo", "renamed", "na%C3%AFve%20%22quoted%22", "de%6Do"])
def test_one_model(proxy: Penstock, name: str) -> None:
    answer = ask(proxy.port, request("GET", f"/v1/models/{name}"))
    assert answer.status == 200 and answer.json()["object"] == "model"


@pytest.mark.parametrize("name", ["none", "demo/x", "%ff", "a" * 3000], ids=["unknown", "slash", "bytes", "long"])
def test_one_unknown_model(proxy: Penstock, name: str) -> None:
    answer = ask(proxy.port, request("GET", f"/v1/models/{name}"))
    error = answer.json()["error"]
    assert (answer.status, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert len(error["message"]) < 1000


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/demo"])
def test_head(proxy: Penstock, path: str) -> None:
    whole = ask(proxy.port, request("GET", path))
    answer = ask(proxy.port, request("HEAD", path), "HEAD")
    assert (answer.status, answer.header("content-length")) == (200, str(len(whole.body)))


@pytest.mark.parametrize("name", ["dem", "Demo", "demo-larg", "renamd"])
def test_near_names_are_told(proxy: Penstock, name: str) -> None:
    message = chat(proxy.port, model=name).json()["error"]["message"]
    assert name in message and any(known in message for known in ("'demo'", "demo-large", "renamed", '"demo"'))


def test_other_apis_under_models_go_on(proxy: Penstock) -> None:
    """Deleting a fine-tuned model is the backend's affair."""
    answer = ask(proxy.port, request("DELETE", "/v1/models/demo"))
    assert answer.header("x-penstock-error") is None and answer.json()["error"]["code"] == "method_not_supported"


@pytest.fixture(scope="module")
def liberal(demo: Demo) -> Iterator[Penstock]:
    with Penstock(config(demo.port, server='unknown_models = "default_backend"')) as process:
        yield process


@pytest.mark.parametrize(
    "model", ["never-heard-of", "", "ft:demo:org::1", "a/b"], ids=["name", "empty", "marks", "slash"]
)
def test_unknown_names_may_go_to_the_default_backend(liberal: Penstock, model: str) -> None:
    body = json.dumps({"model": model}).encode()
    assert ask(liberal.port, request("POST", "/v1/echo", body, JSON_TYPE)).json()["body"].encode() == body


def test_without_discovery_only_configured_names_exist(demo: Demo) -> None:
    text = config(demo.port, more='[models.mine]\ntargets = [{ backend = "demo", model = "demo" }]\n')
    with Penstock(text.replace("discover = true", "")) as process:
        assert listed(process) == ["mine"]
        assert chat(process.port, model="mine").json()["model"] == "demo"
        assert chat(process.port).status == 404


def test_a_backend_that_comes_later_is_found() -> None:
    """An unknown name is looked up anew before it is refused."""
    port = free_port()
    with Penstock(config(port)) as process:
        assert listed(process) == []
        assert chat(process.port).status == 404
        with Demo("--listen", f"127.0.0.1:{port}"):
            wait_until(lambda: chat(process.port).status == 200)
            assert listed(process) == REPORTED


def test_a_backend_away_hides_no_other(demo: Demo) -> None:
    gone = f'[backends.gone]\nkind = "openai"\nurl = "http://127.0.0.1:{free_port()}/v1"\ndiscover = true\n'
    with Penstock(config(demo.port, more=gone)) as process:
        assert listed(process) == REPORTED
        assert process.stop(signal.SIGTERM) == 0

"""From a model's name to its targets, and what is said about names nobody knows."""

import pytest

from penstock.core.config_read import read_config
from penstock.core.errors import MissingField, NoHealthyTarget
from penstock.core.route import Route, RouteGroup, Routes, Target, unknown_model

CHAT = Route.to(Target("a", "gpt-x"), Target("b"))
ROUTES = Routes(models={"chat": CHAT}, ollama=("o1", "o2"), default_backend="d")


@pytest.mark.parametrize(
    ("model", "send_unknown", "route"),
    [
        ("chat", False, CHAT),
        ("found", False, Route.to(Target("c", "found"))),
        ("Chat", False, None),  # names are compared as they are
        ("nobody", False, None),
        ("nobody", True, Route.to(Target("d"))),
        ("", True, Route.to(Target("d"))),
        ("found", True, Route.to(Target("c", "found"))),
    ],
)
def test_of_model(model: str, send_unknown: bool, route: Route | None) -> None:
    routes = Routes(models=ROUTES.models, default_backend="d", send_unknown=send_unknown)
    assert routes.of_model(model, {"found": ("c",)}) == route


def test_a_name_that_several_backends_report_is_served_by_all_of_them() -> None:
    routes = Routes(models={}, weights={"a": 3, "b": 1})
    assert routes.of_model("m", {"m": ("b", "a")}) == Route.to(Target("b", "m", 1), Target("a", "m", 3))


def test_more_backends_than_can_be_chosen_among() -> None:
    route = Routes(models={}).of_model("m", {"m": tuple(f"b{number}" for number in range(100))})
    assert route is not None
    assert [target.backend for target in route.groups[0].targets] == [f"b{number}" for number in range(64)]


def routes_of(models: str) -> Routes:
    backends = "".join(f'[backends.{name}]\nkind = "demo"\nweight = {weight}\n' for weight, name in enumerate("abc", 1))
    return Routes.of(read_config(backends + models, "f").config)


def test_a_model_of_the_configuration() -> None:
    routes = routes_of(
        '[models.m]\ntargets = ["a", { backend = "b", model = "x", weight = 7 }]\nbalance = "weighted"\n'
    )
    assert routes.models["m"] == Route((RouteGroup((Target("a", "m", 1), Target("b", "x", 7)), "weighted", "m"),))


def test_fallback_models_are_groups_of_their_own_and_theirs_are_not_followed() -> None:
    routes = routes_of(
        '[models.m]\ntargets = ["a"]\nfallback = ["n", "o"]\n'
        '[models.n]\ntargets = ["b"]\nbalance = "latency"\nfallback = ["p"]\n'
        '[models.o]\ntargets = ["c"]\n[models.p]\ntargets = ["c"]\n'
    )
    assert routes.models["m"].groups == (
        RouteGroup((Target("a", "m", 1),), "least_in_flight", "m"),
        RouteGroup((Target("b", "n", 2),), "latency", "n"),
        RouteGroup((Target("c", "o", 3),), "least_in_flight", "o"),
    )


def test_a_place_is_in_one_group_only() -> None:
    routes = routes_of(
        '[models.m]\ntargets = [{ backend = "a", model = "x" }]\nfallback = ["n", "o"]\n'
        '[models.n]\ntargets = [{ backend = "a", model = "x" }, "b"]\n'
        '[models.o]\ntargets = [{ backend = "b", model = "n" }]\n'
    )
    assert [group.targets for group in routes.models["m"].groups] == [(Target("a", "x", 1),), (Target("b", "n", 2),)]


def test_where_requests_without_a_known_model_go() -> None:
    routes = routes_of('[backends.o]\nkind = "ollama"\nurl = "http://o"\n[server]\ndefault_backend = "b"\n')
    assert (routes.ollama, routes.default_backend, routes.send_unknown) == (("o",), "b", False)
    assert routes.of_no_model(native=False, required=False) == Route.to(Target("b", None, 2))


def test_a_configured_name_hides_a_reported_one() -> None:
    assert ROUTES.of_model("chat", {"chat": ("c",)}) == CHAT


def test_unknown_models_need_a_default_backend_to_go_to() -> None:
    assert Routes(models={}, send_unknown=True).of_model("nobody", {}) is None


@pytest.mark.parametrize("required", [False, True])
def test_no_model_goes_to_the_default_backend(required: bool) -> None:
    assert ROUTES.of_no_model(native=False, required=required) == Route.to(Target("d"))


def test_no_model_on_a_native_path_goes_to_the_first_ollama() -> None:
    assert ROUTES.of_no_model(native=True, required=False) == Route.to(Target("o1"))


def test_native_path_without_an_ollama() -> None:
    with pytest.raises(NoHealthyTarget, match="no backend of kind ollama is configured") as caught:
        Routes(models={}, default_backend="d").of_no_model(native=True, required=False)
    assert (caught.value.status, caught.value.retry_after_s) == (503, 60)


def test_no_model_where_one_is_needed() -> None:
    with pytest.raises(MissingField, match='names no "model"') as caught:
        Routes(models={}).of_no_model(native=False, required=True)
    assert (caught.value.status, caught.value.param) == (400, "model")


def test_a_path_that_only_a_default_backend_could_take() -> None:
    with pytest.raises(MissingField, match=r"server\.default_backend is not set") as caught:
        Routes(models={}).of_no_model(native=False, required=False)
    assert caught.value.param is None


def test_an_unknown_name_hears_of_near_ones() -> None:
    error = unknown_model("gpt4o", ["gpt-4o", "llama3.2:1b"])
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert error.message == "the model 'gpt4o' does not exist here; did you mean \"gpt-4o\"?"


def test_an_unknown_name_far_from_all() -> None:
    assert unknown_model("zzz", ["gpt-4o"]).message.endswith("; GET /v1/models lists what there is")


def test_a_strangers_name_is_shown_cut_and_quoted() -> None:
    message = unknown_model("\n" + "x" * 10_000, ["x"]).message
    assert len(message) < 400
    assert "\n" not in message

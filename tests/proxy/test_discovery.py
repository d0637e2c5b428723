"""Which backends serve a name, from what each reports."""

from penstock.proxy.discovery import serving


def test_a_name_is_served_by_every_backend_that_reports_it_in_their_order() -> None:
    assert serving([("b", ["m", "n"]), ("a", ["m"]), ("c", [])]) == {"m": ("b", "a"), "n": ("b",)}


def test_a_name_reported_twice_is_one() -> None:
    assert serving([("a", ["m", "m"])]) == {"m": ("a",)}


def test_latest_may_be_left_out() -> None:
    names = serving([("a", ["m:latest"]), ("b", ["m:latest"])])
    assert names == {"m:latest": ("a", "b"), "m": ("a", "b")}


def test_a_name_that_is_reported_itself_stands_for_itself() -> None:
    assert serving([("a", ["m:latest"]), ("b", ["m"])])["m"] == ("b",)

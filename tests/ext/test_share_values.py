"""share_values: what rows share and what is their own give the rows again."""

import random

import pytest

from penstock.ext import share_values


@pytest.mark.parametrize("seed", range(20))
def test_both_parts_give_the_rows_again(seed: int) -> None:
    dice = random.Random(seed)
    words = [f"word {each}" for each in range(dice.randrange(1, 6))]
    rows = [(each, dice.choice(words), each * 0.5, dice.choice([None, *words])) for each in range(dice.randrange(60))]
    chunk = dice.randrange(1, 9)
    shares, chunks = share_values(rows, [1, 3], chunk)
    assert len(chunks) == len(rows) // chunk
    shared = {number: values for number, *values in shares}
    assert list(shared) == list(range(len(shares)))
    assert len({tuple(values) for values in shared.values()}) == len(shares)
    flat = [value for part in chunks for value in part]
    again = [
        (own, shared[number][0], half, shared[number][1])
        for own, half, number in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    ]
    assert again == rows[: len(again)]
    assert len(again) == len(chunks) * chunk


def test_equal_values_that_are_two_objects_come_twice() -> None:
    one, other = "a word".upper(), "a word".upper()
    shares, _ = share_values([(1, one), (2, other), (3, one)], [1], 1)
    assert shares == [(0, "A WORD"), (1, "A WORD")]


def test_what_cannot_be() -> None:
    assert share_values([], [1], 10) == ([], [])
    assert share_values([(1, 2)], [1], 0)[1] == [(1, 0)]
    with pytest.raises(ValueError, match="equally long"):
        share_values([(1, 2), (1, 2, 3)], [1], 2)
    with pytest.raises(ValueError, match="at most 16"):
        share_values([tuple(range(20))], list(range(17)), 1)
    with pytest.raises(IndexError):
        share_values([(1, 2)], [2], 1)

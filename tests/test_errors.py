"""Errors: the tree as drawn, messages that name what, where and what instead, and the nearest name."""

from __future__ import annotations

import inspect
import re

import pytest

from grainline import errors


def test_the_tree_is_as_drawn() -> None:
    drawn = re.findall(
        r"(\w+Error)\b", (errors.__doc__ or "").replace("(ValueError)", "").replace("(RuntimeError)", "")
    )
    defined = [name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)]
    assert sorted(drawn) == sorted(defined)


def test_a_users_mistake_is_a_value_error_and_a_failed_run_is_not() -> None:
    assert issubclass(errors.UserError, ValueError)
    assert issubclass(errors.TrainingError, RuntimeError)
    assert not issubclass(errors.TrainingError, errors.UserError)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"what": "bad."}, "bad."),
        ({"what": "bad.", "where": "a.jsonl:3"}, "a.jsonl:3: bad."),
        ({"what": "bad.", "instead": "Try good."}, "bad. Try good."),
        ({"what": "bad.", "where": "a.jsonl:3", "instead": "Try good."}, "a.jsonl:3: bad. Try good."),
    ],
)
def test_messages_have_up_to_three_parts(parts: dict[str, str], message: str) -> None:
    assert str(errors.DataError(**parts)) == message


@pytest.mark.parametrize(
    ("name", "choices", "sentence"),
    [
        ("dop", ["sft", "dpo"], "Did you mean 'dpo'? There are: dpo, sft."),
        ("xyz", ["sft", "dpo"], "There are: dpo, sft."),
        ("xyz", [], ""),
    ],
)
def test_nearest(name: str, choices: list[str], sentence: str) -> None:
    assert errors.nearest(name, choices) == sentence

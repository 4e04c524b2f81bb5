"""YAML: plain scalars mean what they look like, a key stands once, and what is written is read back."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from grainline.errors import RecipeError
from grainline.recipe import yamls as _yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("yes", "yes"),
        ("1e-4", 1e-4),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("010", 10),
        ("-3", -3),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("true", True),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("{<<: {k: 1}, q: 2}", {"k": 1, "q": 2}),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    assert _yaml.read(f"key: {text}", "x") == {"key": value}


@pytest.mark.parametrize(
    "value", ["off", "yes", "1e5", "123e4", "010", "1:30", "2024-01-01", "", "~", "null", "a: b", "é"]
)
def test_what_is_written_is_read_back_by_us_and_by_a_reader_of_yaml_1_1(value: str) -> None:
    text = _yaml.write({"key": value, "n": 1e-05, "none": None, "list": [1, 2.0, True]})
    expected = {"key": value, "n": 1e-05, "none": None, "list": [1, 2.0, True]}
    assert _yaml.read(text, "x") == expected == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml, line 3: key 'a' stands twice, first in line 1."),
        ("m:\n  a: 1\n  a: 2", "f.yaml, line 3: key 'a' stands twice, first in line 2."),
        ("a:\n\t- 1", "f.yaml, line 2: found character '\\t' that cannot start any token. Indent with spaces"),
        ("a: [1", "f.yaml, line 1: expected ',' or ']'"),
        ("a: !!python/object:os.system {}", "f.yaml, line 1: could not determine a constructor"),
        ("a: 1\n---\nb: 2", "f.yaml, line 2:"),
        ("a: *b", "found undefined alias 'b'"),
        ("\x01", "not YAML"),
        ("{[1]: 2}", "unhashable key"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        _yaml.read(text, "f.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)

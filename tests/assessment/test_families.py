"""Which options a family depends on, and which go together."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from grainline.assessment import families
from grainline.errors import RunError
from grainline.evaluation.journal import key_of
from grainline.evaluation.measures import FAMILIES, Measures, made


def test_every_option_decides_a_family() -> None:
    named = {name for options in families.OPTIONS.values() for name in options} | {"families"}
    assert named == {field.name for field in dataclasses.fields(Measures)}  # type: ignore[arg-type]
    assert set(families.FAMILIES) == set(families.OPTIONS) == set(FAMILIES)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"generate": 2, "draws": 2}, "Set a temperature"),
        ({"levels": {"a": [1]}}, "Name a judge"),
        ({"families": ["documents"]}, "Set place=COLUMN"),
        ({"families": ["control"]}, "Set levels"),
        ({"judge": "no-such-reward"}, "no method"),
        ({"judge": "x.py:X"}, "x.py"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], said: str) -> None:
    with pytest.raises((RunError, ValueError), match=said):
        families.check(made(**options))


@pytest.mark.parametrize(
    ("family", "option", "written"),
    [
        ("generation", "judge", "rules:measure=exact,answers={}"),
        ("control", "judge", "ensemble:of=[(rules:measure=exact,answers={}), (rules:measure=length)]"),
        ("forgetting", "tasks", ["piqa", "{}"]),
        ("forgetting", "neutral", "{}"),
    ],
)
def test_other_bytes_in_a_file_are_another_measurement(family: Any, option: str, written: Any, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    value = [one.format(file) for one in written] if isinstance(written, list) else written.format(file)

    def key() -> str:
        work = SimpleNamespace(measures=made(**{option: value}), other=None, decides=key_of)
        return families.key(work, family)  # type: ignore[arg-type]

    file.write_text("a", encoding="utf-8")
    before = key()
    assert key() == before
    file.write_text("b", encoding="utf-8")
    assert key() != before


def test_the_world_was_measured_with_its_options(world: Any) -> None:
    facts = world.facts()
    for name, family in facts["families"].items():
        assert set(family["options"]) == set(families.OPTIONS[name])
    assert facts["families"]["generation"]["options"]["max_new_tokens"] == 12

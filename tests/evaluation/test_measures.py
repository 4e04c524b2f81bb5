"""What is to be measured: words, values, and what follows from what."""

from __future__ import annotations

import pytest

from grainline.errors import SpecError
from grainline.evaluation import measures
from grainline.evaluation.measures import Measures


@pytest.mark.parametrize(
    ("options", "families"),
    [
        ({}, ("preference", "displacement", "masks")),
        ({"families": ["geometry", "preference"]}, ("preference", "geometry")),
        ({"generate": 3}, ("preference", "displacement", "generation", "masks")),
        ({"families": ["geometry"], "prompts": "x.json"}, ("generation", "geometry")),
        ({"families": ["geometry"], "tasks": ["piqa"]}, ("geometry", "forgetting")),
        ({"families": ["geometry"], "neutral": "x.txt"}, ("geometry", "forgetting")),
        ({"families": ["geometry"], "levels": {"a": [1]}}, ("geometry", "control")),
        ({"families": ["geometry"], "place": "gold"}, ("geometry", "documents")),
    ],
)
def test_an_option_asks_for_its_family(options: dict[str, object], families: tuple[str, ...]) -> None:
    assert measures.made(**options).wanted == families


def test_words() -> None:
    words = [
        "generate=3",
        "tasks=piqa,arc_easy",
        "levels={help: [1, 5]}",
        "condition={help: 10}",
        "judge=rules:measure=length",
        "neutral=",
    ]
    assert measures.read(words) == {
        "generate": 3,
        "tasks": ["piqa", "arc_easy"],
        "levels": {"help": [1, 5]},
        "condition": {"help": 10},
        "judge": "rules:measure=length",
        "neutral": "",
    }
    assert measures.made(**measures.read(words)) == Measures(
        generate=3, tasks=("piqa", "arc_easy"), levels={"help": (1, 5)}, condition={"help": 10},
        judge="rules:measure=length",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["generate"], "sets nothing"),
        (["levels={"], "unreadable"),
        (["generat=3"], r"no option 'generat'.*'generate'"),
        (["generate=-3"], "greater than or equal to 0, not -3"),
        (["families=prefrence"], "preference"),
    ],
)
def test_mistakes(words: list[str], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        measures.made(**measures.read(words))

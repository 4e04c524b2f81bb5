"""Tokens of pairs: each with its class and its figure for each quantity, and with no markup of its own."""

from __future__ import annotations

import re
from html import unescape

from _runs import NASTY
from grainline.report import heat, shades
from grainline.report.heat import Pair, Quantity, Side

REWARD = Quantity("reward", "Reward", "nats", True)
WEIGHT = Quantity("weight", "Weight", "1 is plain", False)


def side(
    tokens: list[str], reward: list[float | None], segment: tuple[int, ...] = (), weight: tuple[float, ...] = ()
) -> Side:
    return Side(
        "chosen", tokens, {"reward": reward, "weight": weight}, segment, ["first", "second"][: len(set(segment))], "n"
    )


def shown(one: Side, *quantities: Quantity) -> list[tuple[str, dict[str, str], str]]:
    """(classes, attributes, text) of each token on the page."""
    view = heat.view(quantities or (REWARD, WEIGHT), [[Pair("p", "p", "", [], [one])]])
    assert view is not None
    html = str(view["pairs"][0]["runs"][0]["sides"][0]["tokens"])
    found = re.findall(r'<span class="([^"]*)"([^>]*)>([^<]*)</span>', html)
    assert "".join(f'<span class="{c}"{a}>{t}</span>' for c, a, t in found) == html
    return [(c, dict(re.findall(r'data-(\w)="([^"]*)"', a)), unescape(t)) for c, a, t in found]


def test_each_token_has_its_shade_and_its_figure() -> None:
    found = shown(side(["a", " b", " c"], [1.0, -0.5, 0.0], weight=(1.0, 0.25, 0.5)))
    assert found == [
        ("t ap4 bp4", {"a": "+1.000", "b": "1.000"}, "a"),
        ("t an2 bp1", {"a": "−0.500", "b": "0.250"}, " b"),
        ("t bp2", {"a": "0.000", "b": "0.500"}, " c"),
    ]


def test_what_is_unknown_has_no_figure() -> None:
    found = shown(side(["a", "b", "c"], [None, float("nan"), 2.0]))
    assert [set(figures) for _, figures, _ in found] == [set(), {"a"}, {"a"}]
    assert found[1][1]["a"] == "not a number"
    assert found[0][0] == found[1][0] == "t"


def test_quantities_without_a_number_are_not_offered() -> None:
    view = heat.view((WEIGHT, REWARD), [[Pair("p", "p", "", [], [side(["a"], [1.0])])]])
    assert view is not None
    assert [(choice["slot"], choice["title"]) for choice in view["choices"]] == [("a", "Reward")]
    assert heat.view((WEIGHT,), [[Pair("p", "p", "", [], [side(["a"], [1.0])])]]) is None
    assert heat.view((REWARD,), []) is None


def test_segments_have_a_bar_between_them() -> None:
    found = shown(side(["a", "b", "c"], [1.0, 1.0, 1.0], segment=(0, 0, 1)))
    assert [("cut" in classes.split(), figures["s"]) for classes, figures, _ in found] == [
        (False, "0"), (False, "0"), (True, "1"),
    ]  # fmt: skip


def test_the_legend_says_what_the_strongest_shade_is() -> None:
    view = heat.view((REWARD, WEIGHT), [[Pair("p", "p", "", [], [side(["a", "b"], [-2.0, 1.0], weight=(0.0, 0.5))])]])
    assert view is not None
    reward, weight = (choice["scale"] for choice in view["choices"])
    assert (reward[0], reward[shades.STEPS], reward[-1]) == (("n4", "−2.00"), ("", "0.00"), ("p4", "+2.00"))
    assert (weight[0], weight[-1]) == (("", "0.00"), ("p4", "0.50"))


def test_tokens_are_seen_and_only_text() -> None:
    texts = [NASTY, "\n", "", "\t", "x" * 1000, '"><b>']
    found = shown(side(texts, [1.0] * 6))
    assert [text for *_, text in found][1:4] == ["↵\n", "∅", "⇥\t"]
    assert "␛" in found[0][2]
    assert len(found[4][2]) == heat.TEXT + 1


def test_long_answers_and_many_pairs_are_cut_and_say_so() -> None:
    long = side(["a"] * (heat.TOKENS + 5), [1.0] * (heat.TOKENS + 5))
    view = heat.view((REWARD,), [[Pair("p", "p", "", [("user", "x" * 9_000)], [long])] * (heat.PAIRS + 2)])
    assert view is not None
    assert (len(view["pairs"]), view["more"]) == (heat.PAIRS, 2)
    assert view["pairs"][0]["runs"][0]["sides"][0]["more"] == 5
    assert view["pairs"][0]["turns"][0]["more"] > 0


def test_runs_share_the_places_of_their_pairs_and_one_scale() -> None:
    def read(key: str, reward: float) -> Pair:
        return Pair(key, f"{key}: {reward}", "", [], [side(["a"], [reward])])

    view = heat.view((REWARD,), [[read("m0", 1.0), read("m1", 2.0)], [read("m1", -4.0)], []])
    assert view is not None
    places = [[(run["number"], run["title"]) for run in pair["runs"]] for pair in view["pairs"]]
    assert places == [[(1, "m0: 1.0")], [(1, "m1: 2.0"), (2, "m1: -4.0")]]
    classes = [re.findall(r'class="t (\w+)"', str(run["sides"][0]["tokens"])) for run in view["pairs"][1]["runs"]]
    assert classes == [["ap2"], ["an4"]]


def test_many_runs_have_fewer_pairs_each() -> None:
    pairs = [Pair(i, "", "", [], [side(["a"], [1.0])]) for i in range(heat.PAIRS)]
    for runs in (2, 4, heat.ALL, 2 * heat.ALL):
        view = heat.view((REWARD,), [pairs] * runs)
        assert view is not None
        each = max(1, heat.ALL // runs)
        assert [len(pair["runs"]) for pair in view["pairs"]] == [runs] * min(heat.PAIRS, each)
    view = heat.view((REWARD,), [pairs[:2]])
    assert view is not None
    assert view["more"] == 0  # fewer than would fit

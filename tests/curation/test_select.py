"""Deita's own results, the two promises of the filter, where scores come from, and each option."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from _endpoint import Say, serving
from grainline import rooms
from grainline.curation import _embeddings, _neighbours
from grainline.curation._seam import Bench, Dropped
from grainline.curation.select import Select
from grainline.errors import DataError, SpecError
from grainline.rewards._seam import Asked, Desk, Scores
from grainline.types import spec

if TYPE_CHECKING:
    from _toy import Toy

# What hkust-nlp/deita b279f2c's own Combined_Filter chose: objectives of this file, from the released code.
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "deita.json").read_text())
Made = list[Sequence[dict[str, Any]]]
needs_hnswlib = pytest.mark.skipif(
    importlib.util.find_spec("hnswlib") is None, reason="hnswlib (source only) is not installed: no graph was tried"
)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "bench")


def selected(step: Select, rows: Sequence[Any], bench: Bench) -> Made:
    with step.open(bench) as makes:
        return list(makes(rows))


def ranked(made: Made) -> list[tuple[int, float]]:
    """(row, score) of those that were kept, by rank."""
    lines = [(row["curation"][-1], n) for n, few in enumerate(made) for row in few]
    return [(n, line["score"]) for line, n in sorted(lines, key=lambda both: both[0]["rank"])]


def why(made: Made) -> list[str]:
    return [few.why if isinstance(few, Dropped) else "" for few in made]


def random_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count // 5, 16))
    vectors = centres[rng.integers(len(centres), size=count)] + 0.2 * rng.normal(size=(count, 16))
    scores = rng.integers(1, 7, size=(count, 2, 2))  # whole numbers: many ties
    return [
        {"id": str(n), "v": v.tolist(), "complexity": s[0].tolist(), "quality": s[1].tolist()}
        for n, (v, s) in enumerate(zip(vectors, scores, strict=True))
    ]


# --------------------------------------------------------------------------------------------- the paper's own


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['threshold']}-{case['data_size']}")
def test_what_the_released_code_chose(case: dict[str, Any], bench: Bench) -> None:
    columns = (GOLDEN["embeddings"], GOLDEN["complexity"], GOLDEN["quality"])
    rows = [
        {"id": str(n), "v": v, "complexity": c, "quality": q} for n, (v, c, q) in enumerate(zip(*columns, strict=True))
    ]
    step = Select(vectors="v", threshold=case["threshold"], budget=case["data_size"])
    assert ranked(selected(step, rows, bench)) == list(zip(case["selected_idx"], case["final_scores"], strict=True))


def test_a_conversation_is_the_sum_of_its_exchanges(bench: Bench) -> None:
    many = GOLDEN["multi_turn"]
    row = {"id": "a", "v": [1.0], "complexity": many["complexity"], "quality": many["quality"]}
    assert ranked(selected(Select(vectors="v"), [row], bench)) == [(0, many["final_score"])]


@pytest.mark.parametrize("budget", [25, None])
@pytest.mark.parametrize("search", ["exact", pytest.param("hnsw", marks=needs_hnswlib)])
def test_highest_scores_first_and_no_two_alike(search: Any, budget: int | None, bench: Bench) -> None:
    """Every row that is left out has a row beside it that is at least as good, or comes after the budget is spent."""
    rows = random_rows(300)
    made = selected(Select(vectors="v", threshold=0.9, budget=budget, search=search), rows, bench)
    kept = [n for n, _ in ranked(made)]
    score = [float(np.dot(row["complexity"], row["quality"])) for row in rows]
    assert [score for _, score in ranked(made)] == [score[n] for n in kept]
    assert [score[n] for n in kept] == sorted((score[n] for n in kept), reverse=True)
    unit = np.array([row["v"] for row in rows])
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    alike = unit @ unit.T
    assert (alike[np.ix_(kept, kept)] - 2 * np.eye(len(kept))).max() <= 0.9 + 1e-6
    assert len(kept) == budget if budget else 40 < len(kept) < 200
    for n, reason in enumerate(why(made)):
        before = [k for k in kept if (-score[k], k) < (-score[n], n)]
        if reason == "alike a better row":
            assert max(alike[n, before]) > 0.9 - 1e-6
        elif reason == "beyond the budget":
            assert before == kept
    assert set(why(made)) == {"", "alike a better row", *(["beyond the budget"] if budget else [])}


def test_rows_stay_in_their_order_and_say_what_they_were_kept_for(bench: Bench) -> None:
    rows = random_rows(60)
    made = selected(Select(vectors="v", threshold=0.5), rows, bench)
    for row, few in zip(rows, made, strict=True):
        for kept in few:
            line = kept["curation"][-1]
            assert {**kept, "curation": None} == {**row, "curation": None}
            assert -1 <= line["nearest"] <= 0.5
    assert ranked(made)[0][0] == max(range(60), key=lambda n: np.dot(rows[n]["complexity"], rows[n]["quality"]))


class Counted(dict[str, Any]):
    """A row that knows how many of its kind there are."""

    alive = most = 0

    def __init__(self, row: dict[str, Any]) -> None:
        super().__init__(row)
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)

    def __del__(self) -> None:
        Counted.alive -= 1


def test_rows_are_gone_through_and_not_held(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_embeddings, "WINDOW", 8)
    rows = random_rows(300)

    class Rows:
        def __iter__(self) -> Iterator[Counted]:
            return map(Counted, rows)

    kept = 0
    with Select(vectors="v").open(bench) as makes:
        for few in makes(Rows()):
            kept += len(few)
    assert kept > 50
    assert Counted.most < 20


# ------------------------------------------------------------------------------------------------- scores


@spec
class Turns:
    """Complexity is the number of turns before the answer, quality the answer's letters; "?" it cannot judge."""

    needs: ClassVar[frozenset[str]] = frozenset()
    between: ClassVar[None] = None
    asked: ClassVar[list[Asked]] = []

    @contextmanager
    def open(self, desk: Desk) -> Iterator[Turns]:
        yield self

    def score(self, asked: Iterable[Asked]) -> Iterator[Scores]:
        for one in asked:
            self.asked.append(one)
            said = {"complexity": float(len(one.prompt)), "quality": float(len(one.answer))}
            yield Scores((tuple(math.nan if one.answer == "?" else said[aspect] for aspect in one.aspects),))


def chat(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


def test_option_complexity(bench: Bench) -> None:
    """A column by another name, a reward, or nothing."""
    row = {"id": "a", "v": [1.0], "hard": 3, "quality": 2, "prompt": "p", "completion": "four"}
    assert ranked(selected(Select(vectors="v", complexity="hard"), [row], bench)) == [(0, 6.0)]
    assert ranked(selected(Select(vectors="v", complexity=None), [row], bench)) == [(0, 2.0)]
    assert ranked(selected(Select(vectors="v", complexity=Turns()), [row], bench)) == [(0, 1.0 * 2)]
    with pytest.raises(DataError, match="a complexity: the column is missing"):
        selected(Select(vectors="v"), [row], bench)
    with pytest.raises(ValueError, match="cannot both be null"):
        Select(complexity=None, quality=None)


def test_option_quality(bench: Bench) -> None:
    """A reward is asked about each exchange of the conversation, once for both where it is the same."""
    rows = [
        {
            "id": "a",
            "v": [1.0, 0.0],
            "prompt": chat("u", "xx", "u"),
            "chosen": "yyy",
            "rejected": "n",
            "complexity": [5, 7],
        },
        {"id": "b", "v": [0.0, 1.0], "messages": chat("u", "?"), "complexity": 1},
    ]
    made = selected(Select(vectors="v", quality=Turns()), rows, bench)
    assert ranked(made) == [(0, 5.0 * 2 + 7.0 * 3)]
    assert why(made) == ["", "no score"]
    Turns.asked.clear()
    both = selected(Select(vectors="v", complexity=Turns(), quality=Turns()), rows, bench)
    assert ranked(both) == [(0, 1.0 * 2 + 3.0 * 3)]
    assert [(len(one.prompt), one.answer, one.aspects) for one in Turns.asked] == [
        (1, "xx", ("complexity", "quality")),
        (3, "yyy", ("complexity", "quality")),
        (1, "?", ("complexity", "quality")),
    ]
    with pytest.raises(SpecError, match="no method 'nothing' in rewards"):
        rooms.parse("curation", "select:quality=(nothing)")


def test_scores_that_make_no_sum(bench: Bench) -> None:
    row = {"id": "a", "v": [1.0], "complexity": [1, 2], "quality": 3}
    with pytest.raises(DataError, match="a: 2 and 1 scores: one each exchange"):
        selected(Select(vectors="v"), [row], bench)
    with pytest.raises(DataError, match="a: a score is below 0"):
        selected(Select(vectors="v"), [row | {"complexity": -1}], bench)
    with pytest.raises(DataError, match=r"a quality: 'good'.*is no score"):
        selected(Select(vectors="v"), [row | {"quality": "good"}], bench)
    made = selected(Select(vectors="v"), [row | {"complexity": None}, row | {"id": "b", "complexity": 2}], bench)
    assert why(made) == ["no score", ""]
    assert why(selected(Select(vectors="v"), [row | {"complexity": None}], bench)) == ["no score"]


def test_a_judge_with_the_papers_scale(bench: Bench) -> None:
    reply = '{"pieces": [{"piece": 1, "scores": {"complexity": 4, "quality": 5}}]}'
    with serving(otherwise=lambda body: Say(reply)) as server:
        judge = f'(judge:model=m,rubric=deita,base_url="{server.url}")'
        step = rooms.parse("curation", f"select:vectors=v,complexity={judge},quality={judge}")
        made = selected(step, [{"id": "a", "v": [1.0], "prompt": "p", "completion": "c"}], bench)
    assert ranked(made) == [(0, 20.0)]
    assert len(server.bodies) == 1
    assert "1 to 6" in server.bodies[0]["messages"][0]["content"]


def test_option_turns(bench: Bench) -> None:
    rows = [{"id": "a", "v": [1.0], "complexity": [2, 3], "quality": [4, 1.5]}]
    assert ranked(selected(Select(vectors="v", turns="last"), rows, bench)) == [(0, 4.5)]


# ------------------------------------------------------------------------------------------------- the filter


def test_option_budget(bench: Bench) -> None:
    rows = random_rows(60)
    everything = ranked(selected(Select(vectors="v"), rows, bench))
    assert ranked(selected(Select(vectors="v", budget=7), rows, bench)) == everything[:7]


def test_option_threshold(bench: Bench) -> None:
    rows = random_rows(60)
    counts = [len(ranked(selected(Select(vectors="v", threshold=t), rows, bench))) for t in (0.0, 0.5, 0.9, 1.0)]
    assert counts == sorted(counts)
    assert counts[0] < counts[2] < counts[3] == 60


def test_option_centred(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Vectors with much in common are all alike, which is said; without it they are as before."""
    rows = random_rows(60)
    moved = [row | {"v": [value + 20 for value in row["v"]]} for row in rows]
    loud = bench._replace(quiet=False)
    assert len(ranked(selected(Select(vectors="v"), moved, loud))) < 5
    assert "most rows are alike by these vectors" in capsys.readouterr().err
    assert len(ranked(selected(Select(vectors="v", centred=True), moved, loud))) > 10
    assert capsys.readouterr().err == ""


def test_option_search(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_rows(80)

    def facts(search: Any) -> dict[str, Any]:
        with Select(vectors="v", search=search).open(bench) as makes:
            list(makes(rows))
            return dict(makes.told([]))

    exact = facts("exact")
    assert exact["similarity_of_any_two"]["5%"] < exact["similarity_of_any_two"]["50%"] < 0.5
    del exact["similarity_of_any_two"]
    assert exact == {"search": "exact", "dimensions": 16, "scored": 80, "kept": exact["kept"]}
    assert exact.items() <= facts("auto").items()
    if importlib.util.find_spec("hnswlib") is None:
        pytest.skip("hnswlib is not installed: the graph was not tried")
    wanted = exact | {"search": "hnsw", "looked_at_exactly": exact["kept"], "of_these_too_near": 0}
    assert wanted.items() <= facts("hnsw").items()
    monkeypatch.setattr(_neighbours, "EXACT", 1)
    assert facts("auto")["search"] == "hnsw"


# ------------------------------------------------------------------------------------------------------- vectors


def texts(toy: Toy, **more: Any) -> list[dict[str, Any]]:
    said = (
        ("tell me of the sea", "calm"),
        ("tell me of the sea", "harsh"),
        ("the moon", "bright"),
        ("the moon", "calm"),
    )
    return [
        {"id": f"{n}", "prompt": chat(p), "completion": c, "complexity": 1, "quality": 9 - n}
        for n, (p, c) in enumerate(said)
    ]


def vectors_of(step: Select, rows: Sequence[Any], monkeypatch: pytest.MonkeyPatch, bench: Bench) -> Any:
    """What the filter is given."""
    seen: list[Any] = []
    inner = _embeddings.filled
    monkeypatch.setattr(_embeddings, "filled", lambda *a, **k: [seen.append(inner(*a, **k)), seen[-1]][1])
    made = selected(step, rows, bench)
    assert len(seen) == 1
    return np.array(seen[0]), made


def test_option_of(toy: Toy, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two answers to one question are alike by the question alone; a row without an answer can be looked at as well."""
    rows = texts(toy)
    _, made = vectors_of(Select(model=toy.model, of="prompt", threshold=0.9999), rows, monkeypatch, bench)
    assert [n for n, _ in ranked(made)] == [0, 2]
    _, made = vectors_of(Select(model=toy.model, threshold=0.9999), rows, monkeypatch, bench)
    assert [n for n, _ in ranked(made)] == [0, 1, 2, 3]
    bare = [{key: value for key, value in row.items() if key != "completion"} for row in rows]
    _, made = vectors_of(Select(model=toy.model, of="prompt", threshold=0.9999), bare, monkeypatch, bench)
    assert [n for n, _ in ranked(made)] == [0, 2]


def differs(toy: Toy, monkeypatch: pytest.MonkeyPatch, bench: Bench, **option: Any) -> None:
    """Other vectors, as many and as long."""
    plain, _ = vectors_of(Select(model=toy.model), texts(toy), monkeypatch, bench)
    other, _ = vectors_of(Select(model=toy.model, **option), texts(toy), monkeypatch, bench)
    assert plain.shape == other.shape == (4, 32)
    assert np.abs(plain - other).max() > 1e-3


def test_option_pooling(toy: Toy, monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    differs(toy, monkeypatch, bench, pooling="mean")


def test_option_max_length(toy: Toy, monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    differs(toy, monkeypatch, bench, max_length=12)


def test_option_dtype(toy: Toy, monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    differs(toy, monkeypatch, bench, dtype="bfloat16")


def test_option_model(toy: Toy, toy_run: Any, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = vectors_of(Select(model=toy.model), texts(toy), monkeypatch, bench)
    tuned, _ = vectors_of(Select(model=str(toy_run.folder)), texts(toy), monkeypatch, bench)
    assert np.abs(plain - tuned).max() > 1e-3


def test_option_vectors(bench: Bench) -> None:
    with pytest.raises(DataError, match="0 w: no vector"):
        selected(Select(vectors="w"), random_rows(5), bench)
    assert Select(vectors="v").needs == frozenset()
    assert Select().needs == {"model"}
    assert Select(quality=Turns()).needs == {"reward", "model"}


def test_option_precision(bench: Bench) -> None:
    rows = random_rows(30)
    whole, half = (ranked(selected(Select(vectors="v", precision=p), rows, bench)) for p in ("float32", "float16"))
    assert whole == half
    sizes = sorted(file.stat().st_size for file in bench.folder.glob("*.npy"))
    assert sizes[1] - sizes[0] == 30 * 16 * 2


class _Fake(_embeddings.Column):
    """In the place of a sentence-transformers model: no two rows are alike."""

    asked: ClassVar[list[Any]] = []

    def __init__(self, model: str, manner: Any) -> None:
        self.asked.append((model, manner))
        super().__init__("fake")

    def key(self, item: Any) -> bytes:
        return item.id.encode()

    def __call__(self, items: Sequence[Any]) -> Any:
        return np.eye(len(items))


def test_option_encoder(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    monkeypatch.setattr(_embeddings, "Sentences", _Fake)
    selected(Select(encoder="sentence-transformers", model="m", max_length=99), BARE, bench)
    assert _Fake.asked[-1] == ("m", _embeddings.Manner("last", "conversation", 99, "auto", "auto"))


def test_option_device(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    monkeypatch.setattr(_embeddings, "Sentences", _Fake)
    selected(Select(encoder="sentence-transformers", model="m", device="cpu"), BARE, bench)
    assert _Fake.asked[-1][1].device == "cpu"


BARE = [{"id": "a", "prompt": "p", "completion": "c", "complexity": 1, "quality": 1}]

"""Vectors are the model's own, whatever stands beside a row; files are filled once, and go on where they stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import _sentences
from grainline import models
from grainline.curation import _embeddings
from grainline.curation._embeddings import Array, Causal, Column, Manner, Sentences, filled, words
from grainline.errors import DataError, ModelError
from grainline.types import Answer, Record

if TYPE_CHECKING:
    from _toy import Toy
    from grainline.runs import Run


class Numbers:
    """Embeds a number as itself and its square; counts what it is asked."""

    name = "numbers"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def key(self, item: int) -> bytes:
        return item.to_bytes(16, "big")

    def __call__(self, items: Sequence[int]) -> Array:
        self.asked += items
        return np.array([[item, item**2] for item in items])


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_embeddings, "WINDOW", 4)


def fill(folder: Path, items: Sequence[int]) -> tuple[list[list[float]], list[int]]:
    embed = Numbers()
    return filled(folder, items, embed).tolist(), embed.asked


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    expected = [[float(n), float(n**2)] for n in range(20)]
    assert fill(tmp_path, range(10)) == (expected[:10], list(range(10)))
    assert fill(tmp_path, range(10)) == (expected[:10], [])
    other = [0, 1, 2, 3, 7, 7, 7, 7, 8, 9]  # as many rows, others
    assert fill(tmp_path, other) == ([expected[n] for n in other], other)
    assert fill(tmp_path, range(10)) == (expected[:10], [])
    assert fill(tmp_path / "none", []) == ([], [])


@pytest.mark.parametrize("at", [0, 8])
def test_an_interrupted_file_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, at: int) -> None:
    class Killed(Numbers):
        def __call__(self, items: Sequence[int]) -> Array:
            if at in items:
                raise KeyboardInterrupt
            return super().__call__(items)

    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path / "a", range(14), Killed())
    found, asked = fill(tmp_path / "a", range(14))
    assert asked == list(range(at, 14))
    assert found == fill(tmp_path / "b", range(14))[0]
    files = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in "ab"]
    assert files[0] == files[1]


def test_it_says_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(_embeddings, "SILENCE", -1.0)
    filled(tmp_path, range(6), Numbers(), quiet=False)
    assert capsys.readouterr().err.splitlines() == ["vectors of 4 of 6 rows", "vectors of 6 of 6 rows"]
    filled(tmp_path / "quiet", range(6), Numbers())
    assert capsys.readouterr().err == ""


def test_half_precision_is_half_as_large(tmp_path: Path) -> None:
    filled(tmp_path, range(500), Numbers())
    half = filled(tmp_path, range(500), Numbers(), "float16")
    assert half.dtype == np.float16
    assert isinstance(half, np.memmap)
    sizes = sorted(file.stat().st_size for file in tmp_path.glob("*.npy"))
    assert sizes[1] - sizes[0] == 500 * 2 * 2


# ------------------------------------------------------------------------------------------------------- columns


def test_vectors_of_a_column(tmp_path: Path) -> None:
    items = [(str(n), [float(n), 1.0]) for n in range(6)]
    assert filled(tmp_path, items, Column("v")).tolist() == [vector for _, vector in items]
    for bad, why in ((None, "5 v: no vector"), ([1.0], "5 v: no vector"), (["a", "b"], "not all are numbers")):
        with pytest.raises(DataError, match=why):
            filled(tmp_path, [*items[:5], ("5", bad)], Column("v"))
    with pytest.raises(DataError, match="vectors of 3 numbers among vectors of 2"):
        filled(tmp_path, [*items[:4], ("4", [1.0, 2.0, 3.0])], Column("v"))


# -------------------------------------------------------------------------------------------------- causal models


def records() -> list[Record]:
    turn = {"role": "user", "content": "tell me of the sea"}
    said = ("calm and kind", "bright", "a warm and gentle and kind and calm answer")
    chats = [Record(str(n), (turn,), (Answer(text),)) for n, text in enumerate(said)]
    return [*chats, Record("plain", "the sky is", (Answer(" calm"),)), Record("asks", (turn,), ())]


def alone(toy: Toy, ids: Sequence[int]) -> torch.Tensor:
    """(tokens, H) the plain model's final hidden states."""
    with torch.no_grad():
        model = models.load(toy.model).model
        return model(input_ids=torch.tensor([list(ids)]), output_hidden_states=True).hidden_states[-1][0]


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("of", ["conversation", "prompt"])
def test_a_vector_is_the_models_final_state_whatever_stands_beside(
    toy: Toy, pooling: Any, of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_embeddings, "TOKENS", 60)
    tokenizer = models.load_tokenizer(toy.model)
    found = Causal(toy.model, Manner(pooling, of))(records())
    for record, vector in zip(records(), found, strict=True):
        said = record.answers[0].text if record.answers and of == "conversation" else None
        if isinstance(record.prompt, str):
            text = record.prompt + (said + tokenizer.eos_token if said else "")
        else:
            more = [{"role": "assistant", "content": said}] if said else []
            turns = [*map(dict, record.prompt), *more]
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=not said).rstrip("\n")
            text += "" if said else "\n"
        state = alone(toy, tokenizer(text, add_special_tokens=False)["input_ids"])
        expected = state[-1] if pooling == "last" else state.mean(0)
        np.testing.assert_allclose(vector, expected.numpy(), atol=2e-5)


def test_a_run_embeds_with_its_adapter(toy: Toy, toy_run: Run) -> None:
    plain, tuned = (Causal(str(name), Manner())(records()) for name in (toy.model, toy_run.folder))
    assert np.abs(plain - tuned).max() > 1e-2


def test_a_changed_adapter_makes_vectors_anew(toy: Toy, toy_run: Run) -> None:
    plain, tuned = (Causal(str(name), Manner()) for name in (toy.model, toy_run.folder))
    assert plain.name != tuned.name == Causal(str(toy_run.adapter), Manner()).name
    with torch.no_grad():
        next(p for name, p in tuned.model.named_parameters() if "lora_B" in name).add_(1.0)
    assert _embeddings.fingerprint(tuned.model) not in tuned.name
    assert Causal(toy.model, Manner("mean")).name != plain.name


def test_too_long_a_conversation_loses_its_beginning(toy: Toy) -> None:
    turns = tuple({"role": role, "content": "the sea " * 20} for role in ("user", "assistant", "user"))
    record = Record("long", turns, (Answer("calm"),))
    shorter = record._replace(prompt=turns[2:])
    assert len(Causal(toy.model, Manner())._ids([record])[0]) > 100
    few = Causal(toy.model, Manner(max_length=100))
    assert few._ids([record]) == few._ids([shorter])


# -------------------------------------------------------------------------------------------- sentence-transformers


def test_a_sentence_transformers_model(toy: Toy, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = str(_sentences.tiny(tmp_path, models.load_tokenizer(toy.model)))
    found = Sentences(model, Manner(device="cpu"))(records())
    whole = SentenceTransformer(model, device="cpu")
    expected = whole.encode([words(record, "conversation") for record in records()])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert words(records()[0], "conversation") == "tell me of the sea\n\ncalm and kind"
    assert words(records()[0], "prompt") == "tell me of the sea"


def test_without_sentence_transformers_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_embeddings.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"grainline\[select\]"):
        Sentences("x", Manner())

"""Perplexity of plain text, against transformers' own loss."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from grainline.data import collate
from grainline.errors import DataError
from grainline.evaluation import neutral
from grainline.evaluation.speakers import Subject


def test_perplexity_is_the_exponential_of_the_models_own_loss(voices: Subject, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("tell me of the sea and the sky, naïve one; " * 6, encoding="utf-8")
    read = neutral.pieces(voices.tokenizer, str(tmp_path / "x.txt"), length=40)
    assert len(read) > 2
    lines, losses, counts = [], [], []
    with torch.no_grad():
        for example, line in read:
            batch = collate.collate([example], rows="chosen")
            lines.append(line | {"policy": float(voices.policy.scorer(batch).token.sum())})
            ids = torch.tensor([[*example.prompt, *example.answers[0].ids]])
            with voices.policy.plain() as model:
                losses.append(float(model(input_ids=ids, labels=ids).loss))
            counts.append(ids.shape[1] - 1)
    loss = sum(a * n for a, n in zip(losses, counts, strict=True)) / sum(counts)
    found = neutral.figures(lines)
    assert found["forgetting/perplexity"] == pytest.approx(math.exp(loss), rel=1e-6)
    assert [line["tokens"] for line in lines] == counts
    size = sum(len(line["text"].encode()) for line in lines)
    assert found["forgetting/bits_per_byte"] == pytest.approx(loss * sum(counts) / math.log(2) / size, rel=1e-6)
    assert "forgetting/change" not in found


def test_before_and_after_by_hand() -> None:
    lines = [
        {"id": "0", "tokens": 2, "bytes": 8, "policy": -4.0, "reference": -2.0},
        {"id": "1", "tokens": 3, "bytes": 8, "policy": -6.0, "reference": -6.0},
    ]
    found = neutral.figures(lines)
    assert found["forgetting/perplexity"] == pytest.approx(math.exp(10 / 5))
    assert found["forgetting/perplexity_before"] == pytest.approx(math.exp(8 / 5))
    assert found["forgetting/change"] == pytest.approx(2 / 5)
    assert found["forgetting/bits_per_byte"] == pytest.approx(10 / math.log(2) / 16)


def test_the_packaged_text_is_read_whole(voices: Subject) -> None:
    read = neutral.pieces(voices.tokenizer)
    text = neutral.PACKAGED.read_text(encoding="utf-8")
    assert text.startswith("Four score")
    assert sum(line["tokens"] + 1 for _, line in read) == len(voices.tokenizer(text)["input_ids"])


@pytest.mark.parametrize(("content", "said"), [(b"", "no text"), (b"\xff\xfe\xfa", "not UTF-8"), (None, "unreadable")])
def test_files_that_cannot_be_read(content: bytes | None, said: str, voices: Subject, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(DataError, match=said):
        neutral.pieces(voices.tokenizer, str(tmp_path / "x.txt"))

"""A text's vector is the mean of final states, against transformers' own."""

from __future__ import annotations

import pytest
import torch

from grainline.evaluation.speakers import Subject
from grainline.evaluation.vectors import vectors


def test_means_of_final_states(voices: Subject) -> None:
    texts = [[5, 6, 7], [9, 10, 11, 12, 13]]
    assert voices.reference is not None
    found = vectors(voices.reference, voices, texts, max_tokens=100)
    with voices.reference.plain() as model, torch.no_grad():
        for text, vector in zip(texts, found, strict=True):
            ids = torch.tensor([[voices.tokenizer.eos_token_id, *text]])
            states = model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, :-1]
            assert vector == pytest.approx(states.mean(0).tolist(), abs=1e-9)

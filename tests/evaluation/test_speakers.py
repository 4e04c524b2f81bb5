"""A speaker's model is its own while it is asked, and nobody's afterwards."""

from __future__ import annotations

import torch

from grainline.evaluation.speakers import Subject


def test_plain_is_the_speakers_own_model(voices: Subject) -> None:
    ids = torch.tensor([[5, 6, 7]])
    found = {}
    for speaker in (voices.policy, voices.reference):
        assert speaker is not None
        with speaker.plain() as model, torch.no_grad():
            found[speaker.name] = model(input_ids=ids).logits
            assert not speaker.scorer.packed
        assert speaker.scorer.packed
    with torch.no_grad(), voices.policy.scorer.model.disable_adapter(), voices.policy.scorer.plain() as model:
        torch.testing.assert_close(model(input_ids=ids).logits, found["reference"])
    assert (found["policy"] - found["reference"]).abs().max() > 0.01

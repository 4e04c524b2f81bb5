"""The model's one question: how likely is each answer token? Asked of packed question trees, exactly.

Four things make it cheap without changing a number: a prompt is read once for all of its answers, nothing is padded,
the (tokens x vocabulary) logits never exist whole, and a decoder's small operations are taken as fewer, larger ones.

It knows nothing of objectives, adapters or optimizers.
"""

from __future__ import annotations

from grainline.forward.layouts import Chosen, choose_layout, probe_examples, probe_length, rounding
from grainline.forward.scorer import Scorer
from grainline.forward.states import parts
from grainline.forward.voices import voices

__all__ = ["Chosen", "Scorer", "choose_layout", "parts", "probe_examples", "probe_length", "rounding", "voices"]

"""The model's one question: how likely is each answer token? Asked of packed question trees, exactly.

Three things make it cheap without changing a number: a prompt is read once for all of its answers, nothing is padded,
and the (tokens x vocabulary) logits never exist whole.

==============  ===============================================================================================
``scorer``      model + batch -> log-probs: the module that is prepared, wrapped and called
``trees``       tree attention: an answer sees its prompt and itself
``head``        hidden states -> log-probs of the answer tokens, in chunks
``divergence``  the same, together with the divergence from the reference over the whole vocabulary
``states``      what a reference keeps beside log-probs, for an objective that asks for it
``voices``      policy and reference of one batch
``layouts``     which batch layout is exact for the user's own model, found out before the first step
==============  ===============================================================================================

It knows nothing of objectives, adapters or optimizers.
"""

from __future__ import annotations

from grainline.forward.layouts import Chosen, choose_layout, probe_length, rounding
from grainline.forward.scorer import Scorer
from grainline.forward.states import parts
from grainline.forward.voices import voices

__all__ = ["Chosen", "Scorer", "choose_layout", "parts", "probe_length", "rounding", "voices"]

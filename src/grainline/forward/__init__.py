"""The model's one question: how likely is each answer token? Asked of packed question trees, exactly.

Four things make it cheap without changing a number: a prompt is read once for all of its answers, nothing is padded,
the (tokens x vocabulary) logits never exist whole, and a decoder's small operations are taken as fewer, larger ones.

=============  ================================================================================================
``scorer``     model + batch -> log-probs: the module that is prepared, wrapped and called
``trees``      tree attention: an answer sees its prompt and itself
``attention``  ... by plain matrix products, which a CPU is fast at
``head``       hidden states -> log-probs of the answer tokens, in chunks
``fuse``       larger operations put into a model, where they are proved to fit
``kernels``    ... and what they compute
``layouts``    which batch layout is exact for the user's own model, found out before the first step
=============  ================================================================================================

It knows nothing of objectives, adapters or optimizers.
"""

from __future__ import annotations

from grainline.forward.layouts import Chosen, choose_layout, probe_length, rounding
from grainline.forward.scorer import Scorer

__all__ = ["Chosen", "Scorer", "choose_layout", "probe_length", "rounding"]

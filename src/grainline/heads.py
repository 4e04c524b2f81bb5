"""An objective's own trainable modules: built for a model, put beside it, tagged for the optimizer.

They live in the Scorer, so that they are wrapped, called, saved and resumed with the model; they are no part of the
adapter, and an export knows nothing of them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from grainline.forward import Scorer
from grainline.objectives._seam import Sum
from grainline.types import Dims, Seen, Tagged


class Summands(nn.Module):
    """The modules of a sum's terms, their outputs under ``i.name`` for term i."""

    def __init__(self, parts: dict[int, nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({str(i): module for i, module in parts.items()})
        self.names = tuple(f"{i}.{name}" for i, module in parts.items() for name in module.names)  # type: ignore[union-attr]

    def forward(self, seen: Seen) -> dict[str, Tensor]:
        return {f"{i}.{name}": said for i, module in self.parts.items() for name, said in module(seen).items()}


def build(objective: Any, dims: Dims) -> nn.Module | None:
    """The modules that ``objective`` trains beside the model, or None."""
    if isinstance(objective, Sum):
        parts = {i: build(term, dims) for i, (_, term) in enumerate(objective.terms)}
        found = {i: module for i, module in parts.items() if module is not None}
        return Summands(found) if found else None
    return objective.heads(dims) if hasattr(objective, "heads") else None


def beside(objective: Any, model: Any) -> nn.Module | None:
    """The modules of ``objective`` as ``model`` needs them, in float32 on its device; None where it has none."""
    config = model.config.get_text_config()
    found = build(objective, Dims(config.hidden_size, config.num_hidden_layers, config.vocab_size))
    return None if found is None else found.to(model.device)


def attach(objective: Any, scorer: Scorer) -> None:
    """Put the modules of ``objective`` into ``scorer``."""
    scorer.heads = beside(objective, scorer.causal)


def tagged(heads: nn.Module | None) -> list[Tagged]:
    """Every tensor of these modules, with the role that its module states."""
    if heads is None:
        return []
    return [Tagged(f"heads.{name}", tensor, _role(heads, name)) for name, tensor in heads.named_parameters()]


def _role(heads: nn.Module, name: str) -> str:
    """Stated by the module itself, or by the summand that holds the tensor."""
    for module in (heads, *(heads.get_submodule(".".join(name.split(".")[:k])) for k in range(1, name.count(".") + 1))):
        if (role := getattr(module, "role", None)) is not None:
            return str(role)
    raise TypeError(f"{type(heads).__name__} states no role for {name}")

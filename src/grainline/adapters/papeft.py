r"""PAPEFT: a vector for each place in the prompt where a document may stand, read instead of the separator before it.

Zhang et al. 2024, arXiv:2404.01430. Models prefer some places of retrieved documents; the paper adds "the relative
positions of documents as additional input prompts" and trains nothing else. Its method section could not be read and
there is no official code: all that follows is inferred.

A prompt has a separator (the token ``marker``) ``tokens`` times before each document. The n-th of them is read as

.. math:: e_n = e_{\mathrm{marker}} + \mathrm{MLP}(E_j)_i, \qquad j = \lfloor n / t \rfloor,\ i = n \bmod t,
          \qquad \mathrm{MLP}(x) = W_2 \tanh(W_1 x + b_1) + b_2

with E, W and b trained, W_2 and b_2 zero at the start: K d + d d + d + t h d + t h parameters for K places, width d and
a model of width h. Nothing is inserted: when data are prepared the n-th separator of a prompt becomes the added id
``first + n``, so a row is as long as it was, and a token's vector depends on its id alone. Off, and to the reference,
every added id is the separator. Merging writes the vectors into the table, where ``first`` names reserved rows of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from grainline.adapters._parts import task_type, unwrapped
from grainline.errors import DataError, ModelError
from grainline.types import spec

if TYPE_CHECKING:
    from torch import Tensor, nn


@spec
class PAPEFT:
    paper: ClassVar[str] = "arXiv:2404.01430"
    layouts: ClassVar[frozenset[str]] = frozenset({"tree", "packed", "padded"})
    roles: ClassVar[dict[str, str]] = {
        "papeft_E": "location",
        "papeft_W1": "down",
        "papeft_b1": "down",
        "papeft_W2": "up",
        "papeft_b2": "up",
    }
    changes_base: ClassVar[bool] = False

    marker: int = Field(0, ge=0)
    """Id of the separator that stands before each document in the data's prompts."""
    locations: int = Field(20, ge=1)
    """K: the most documents a prompt may have."""
    tokens: int = Field(1, ge=1)
    """t: how many separators in a row stand before each document, each with a vector of its own."""
    width: int = Field(128, ge=1)
    """d: numbers in a place's embedding, and units of the MLP."""
    first: int = Field(2**24, ge=1)
    """The added ids begin here. The default lies beyond every vocabulary; the first of K t reserved tokens in a row
    makes merging possible."""

    @property
    def added(self) -> int:
        """K t: the number of added ids."""
        return self.locations * self.tokens

    @property
    def reading(self) -> str:
        """What a base model's reading of the prepared prompts depends on, beside their ids."""
        return f"ids {self.first} to {self.first + self.added - 1} as {self.marker}"

    def placed(self, ids: Sequence[int], where: str = "") -> tuple[int, ...]:
        """A prompt with its separators replaced by added ids, counted from its beginning.

        Raises:
            DataError: more separators than places, or a document without all of its ``tokens``.
        """
        places = [at for at, id in enumerate(ids) if id == self.marker]
        if len(places) > self.added:
            raise DataError(
                f"the prompt has {len(places)} separators (token {self.marker}) for {self.added} places.",
                where=where,
                instead="Raise papeft's locations, or put fewer documents into a prompt.",
            )
        if len(places) % self.tokens:
            raise DataError(
                f"the prompt has {len(places)} separators (token {self.marker}), not {self.tokens} for each document.",
                where=where,
                instead="Write all of them, and keep the prompt below max_length: shortening may have cut some.",
            )
        number = {at: self.first + n for n, at in enumerate(places)}
        return tuple(number.get(at, id) for at, id in enumerate(ids))

    def examined(self, ids: Tensor) -> Tensor:
        """``ids`` (rows, tokens) with a place of its own at the beginning of each row."""
        import torch

        ids = ids.clone()
        ids[:, 0] = self.first + torch.arange(len(ids), device=ids.device) % self.added
        return ids

    def readied(self, model: nn.Module) -> None:
        """Make ``model`` read added ids as the separator until an adapter is there.

        Raises:
            ModelError: as :meth:`config`.
        """
        from grainline.adapters.papeft_torch import AsMarker

        name = self._table(model)
        hook = AsMarker(self.first, self.added, self.marker)
        unwrapped(model).get_submodule(name).register_forward_pre_hook(hook)

    def config(self, model: nn.Module) -> Any:
        """PEFT's configuration for ``model``.

        Raises:
            ModelError: a model without a table of tokens, or ids that do not fit it.
        """
        from grainline.adapters.papeft_torch import PapeftConfig

        name = self._table(model)
        head = getattr(unwrapped(model), "get_output_embeddings", lambda: None)()
        table = unwrapped(model).get_submodule(name)
        return PapeftConfig(
            task_type=task_type(model),
            target_modules=[name],
            marker=self.marker,
            locations=self.locations,
            tokens=self.tokens,
            width=self.width,
            first=self.first,
            tied=getattr(head, "weight", None) is table.weight,
        )

    def _table(self, model: nn.Module) -> str:
        """The name of the input embedding, which the ids are seen to fit."""
        base = unwrapped(model)
        try:
            table = base.get_input_embeddings()  # type: ignore[operator]
            name = next(name for name, module in base.named_modules() if module is table)
        except (AttributeError, NotImplementedError, StopIteration):
            raise ModelError(f"{type(base).__name__} reads no token ids.", where="adapter: papeft") from None
        rows, last = len(table.weight), self.first + self.added - 1
        if self.marker >= rows:
            what = f"the model has tokens 0 to {rows - 1}, and no {self.marker}."
            raise ModelError(what, where="adapter: marker", instead="Give the id of the separator in your prompts.")
        if self.first < rows <= last or self.first <= self.marker <= last:
            raise ModelError(
                f"added ids {self.first} to {last} do not fit a table of {rows} rows with the separator {self.marker}.",
                where="adapter: first",
                instead=f"They may be reserved tokens, all below {rows}, or leave first out.",
            )
        return name

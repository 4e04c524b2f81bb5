"""What our PEFT tuners share, so that a new one is its mathematics and nothing else.

A tuner is a file ``<name>_torch.py`` with two classes::

    class SaraChange(Change):           # nn.Module of one layer: its tensors, and what they do to the layer's output
    class SaraConfig(TunerConfig):      # what adapter_config.json holds; names the change

The rest is here: :class:`ChangedLayer` wraps a module as PEFT wants it, and :class:`TunerModel` puts it into a model.
Defining the configuration makes PEFT know the tuner, under a type of our own (``GRAINLINE_SARA``) that stands in users'
files.

A change sees its layer through :class:`grainline.adapters._frozen.Frozen`. It computes in float32 (float64 for a
float64 base); the layer casts on both sides. Letters in shapes: ``O`` outputs, ``I`` inputs (of a convolution:
channels times kernel).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft import PeftConfig, PeftType
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
from peft.utils import register_peft_method
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from grainline.adapters._frozen import Frozen
from grainline.errors import ModelError

# ------------------------------------------------------------------------------------- what a method writes


@dataclasses.dataclass
class TunerConfig(PeftConfig):
    """What adapter_config.json holds of every tuner of ours. A subclass adds the options that shape its tensors."""

    tuner: ClassVar[str]  # the method's name with underscores
    change: ClassVar[type[Change]]
    layer: ClassVar[type[ChangedLayer] | None] = None
    """How PEFT is to wrap a module, where :class:`ChangedLayer` does not do."""
    added_ids: ClassVar[bool] = False
    """Whether it reads ids that only prepared prompts hold."""

    target_modules: Any = None  # names; PEFT would find "all-linear" under a first adapter of its own only
    exclude_modules: Any = None
    modules_to_save: list[str] | None = None
    # A saved adapter brings its tensors with it: no decomposition of the base is needed to make room for them.
    stored: bool = False

    def __init_subclass__(cls) -> None:
        _register(cls)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = peft_type(self.tuner)
        for name in ("target_modules", "exclude_modules"):
            if isinstance(given := getattr(self, name), (list, tuple)):
                setattr(self, name, set(given))

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"stored": True}


class Change(nn.Module):
    """What one adapter does to one layer: trainable parameters, frozen buffers and their mathematics.

    Subclasses are leaves. They take their shapes from the configuration and the layer's shape alone, never from its
    weights, so that a saved adapter fits again.
    """

    unmergeable: ClassVar[str] = ""
    """Why no single weight stands for the change; empty where one does."""
    kinds: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear, nn.Conv2d, Conv1D)
    """Modules that can carry it."""

    def __init__(self, layer: Frozen, config: Any, name: str) -> None:
        """Args:
        layer: The frozen layer; its weight may be on the meta device.
        config: Of this adapter.
        name: Dotted name of the layer in the model.
        """
        super().__init__()

    def forward(self, x: Tensor, layer: Frozen) -> Tensor:
        """The changed layer's output, (..., O), for inputs (..., I) or, before a convolution, (..., channels)."""
        raise NotImplementedError

    def merged(self, weight_OI: Tensor) -> Tensor:
        """The weight that does the same in the place of ``weight_OI``."""
        raise NotImplementedError


# ---------------------------------------------------------------------------------------------- what PEFT wants


class ChangedLayer(nn.Module, BaseTunerLayer):
    """A module with changes, of which one at most is active: two that do not add have no common order."""

    container: ClassVar[str]
    change: ClassVar[type[Change]]
    shares_head: ClassVar[bool] = True  # of a module whose weight the output head uses too, the head changes as well
    other_param_names = ()

    def __init__(self, base_layer: nn.Module, name: str) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.name = name
        self._disable_adapters = False
        self._active_adapter: str | list[str] = []
        self.merged_adapters: list[str] = []
        self._unchanged: Tensor | None = None  # the weight as it was before a merge
        setattr(self, self.container, nn.ModuleDict())

    @property
    def changes(self) -> nn.ModuleDict:
        return getattr(self, self.container)

    def update_layer(self, adapter_name: str, config: TunerConfig) -> None:
        """Add a fresh adapter."""
        layer = Frozen(self.base_layer)
        self.changes[adapter_name] = self.change(layer, config, self.name).train(self.training)
        self.set_adapter(self.active_adapters or adapter_name, inference_mode=config.inference_mode)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        change = None if self.disable_adapters or self.merged else self._active_change()
        if change is None:
            return self.base_layer(x, *args, **kwargs)
        layer = Frozen(self.base_layer, next(change.parameters()).dtype)
        dtype = torch.get_autocast_dtype(x.device.type) if under_autocast(x) else x.dtype
        if layer.convolution is None:
            return change(x.to(layer.dtype), layer).to(dtype)
        return change(x.movedim(1, -1).to(layer.dtype), layer).movedim(-1, 1).to(dtype)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put the changed weight in the place of the frozen one, which is kept so that :meth:`unmerge` is exact.

        Raises:
            ModelError: no single weight stands for the change, or the base is quantised.
            ValueError: ``safe_merge``, and the changed weight is not finite.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.changes]
        if not names:
            return
        if len(names) > 1 or self.merged_adapters:
            raise ModelError("one adapter can be merged at a time.", where="merge", instead="Unmerge the other first.")
        change = self.changes[names[0]]
        if change.unmergeable:
            raise ModelError(
                f"no weight stands for it: {change.unmergeable}.", where="merge", instead="Ship the adapter."
            )
        layer = Frozen(self.base_layer, next(change.parameters()).dtype)
        with torch.no_grad():
            weight = change.merged(layer.weight_OI)  # type: ignore[operator]
        if safe_merge and not torch.isfinite(weight).all():
            raise ValueError(f"adapter {names[0]} makes a weight that is not finite at {self.name}")
        kept = layer.module.weight.data
        layer.write(weight)
        self._unchanged = kept
        self.merged_adapters.append(names[0])

    def unmerge(self) -> None:
        """Put the frozen weight back, bit for bit."""
        if self._unchanged is not None:
            self.get_base_layer().weight.data = self._unchanged
            self._unchanged = None
            self.merged_adapters.clear()

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """The changed weight minus the frozen one, (outputs, fan_in)."""
        change = self.changes[adapter_name]
        weight = Frozen(self.base_layer, next(change.parameters()).dtype).weight_OI
        return change.merged(weight) - weight  # type: ignore[operator]

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return not self.changes[adapter_name].unmergeable

    def _active_change(self) -> Change | None:
        active = [name for name in self.active_adapters if name in self.changes]
        if len(active) > 1:
            raise ModelError(f"{' and '.join(active)} are active together.", where="adapter", instead="Activate one.")
        return self.changes[active[0]] if active else None  # type: ignore[return-value]

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        # PEFT would also round to the base's dtype, buffers included, and round parameters up again afterwards.
        change, there = self.changes[adapter_name], device or Frozen(self.base_layer).device
        if not any(tensor.is_meta for tensor in change.parameters()):
            change.to(there)


class TunerModel(BaseTuner):
    """Puts one kind of :class:`ChangedLayer` into a model."""

    tuner_layer_cls: type[ChangedLayer]

    def _create_and_replace(  # type: ignore[override]
        self,
        config: TunerConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        if isinstance(target, self.tuner_layer_cls):
            target.update_layer(adapter_name, config)
            return
        kinds = self.tuner_layer_cls.change.kinds
        if not isinstance(target, kinds):
            able = ", ".join(kind.__name__ for kind in kinds)
            raise ModelError(
                f"{current_key} is a {type(target).__name__}.", where="adapter: targets", instead=f"{able}."
            )
        layer = self.tuner_layer_cls(target, current_key)
        layer.update_layer(adapter_name, config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    # PEFT warns of what is tied to the output head, twice.
    def _get_tied_target_modules(self, model: nn.Module) -> list[str]:
        return super()._get_tied_target_modules(model) if self.tuner_layer_cls.shares_head else []

    def _check_tied_modules(self, model: nn.Module, peft_config: PeftConfig) -> None:
        if self.tuner_layer_cls.shares_head:
            super()._check_tied_modules(model, peft_config)

    @contextlib.contextmanager
    def _enable_peft_forward_hooks(self, *_: Any, **kwargs: Any) -> Iterator[None]:
        # Without this PEFT drops the argument in silence, and every row is answered by the active adapter.
        if kwargs.get("adapter_names") is not None:
            raise ModelError(
                "one batch cannot mix adapters of this kind.", where="adapter_names", instead="Split the batch."
            )
        yield


# --------------------------------------------------------------------------------------------------- registration


def peft_type(tuner: str) -> PeftType:
    """PEFT's enum member for a tuner of ours, made if it is not there."""
    name = f"GRAINLINE_{tuner.upper()}"
    if name not in PeftType.__members__:
        member = str.__new__(PeftType, name)
        member._name_ = member._value_ = name
        member._sort_order_ = len(PeftType.__members__)  # type: ignore[attr-defined]
        PeftType._member_names_.append(name)
        PeftType._member_map_[name] = member
        PeftType._value2member_map_[name] = member
        type.__setattr__(PeftType, name, member)  # Enum itself forbids new members
    return PeftType[name]


def _register(config: type[TunerConfig]) -> None:
    """Make PEFT know a tuner."""
    member, prefix = peft_type(config.tuner), f"grainline_{config.tuner}_"
    container, stem = f"{prefix}change", config.__name__.removesuffix("Config")
    own = {"container": container, "change": config.change, "adapter_layer_names": (container,)}
    layer = type(f"{stem}Layer", (config.layer or ChangedLayer,), own | {"__module__": config.__module__})
    own = {"prefix": prefix, "tuner_layer_cls": layer, "target_module_mapping": {}}  # the spec's targets have a default
    model = type(f"{stem}Model", (TunerModel,), own)
    register_peft_method(name=member.value.lower(), config_cls=config, model_cls=model, prefix=prefix)


def under_autocast(x: Tensor) -> bool:
    """Does autocast act where ``x`` is? torch will not be asked of a tensor without a device."""
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)


# Whoever imports this, PEFT's hook among them, has all tuners registered: each by the definition of its configuration.
for _path in sorted(Path(__file__).parent.glob("[!_]*_torch.py")):
    importlib.import_module(f"grainline.adapters.{_path.stem}")

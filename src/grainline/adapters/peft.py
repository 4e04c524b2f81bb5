r"""Any of PEFT's own tuners, by its type: OFT, BOFT, HRA, VeRA, IA3, RoAd, PSOFT, DeLoRA, prompt tuning and so on.

``peft:type=OFT,oft_block_size=16`` makes ``peft.OFTConfig(oft_block_size=16)``. Every field of the configuration of
that type is an option; its meaning and default are PEFT's, two aside: where PEFT would start away from the base model
although it could start at it (C3A, FourierFT), it starts at it. What an option may be is read off PEFT's dataclass.

A change that reads one token at a time can share a prompt between answers, and was tried to do so here, type by type;
what is random per position cannot; of prompt learning and of types that are not known here nothing is assumed, so they
read padded rows. Types that cannot be trained by a loop like ours are refused, each with the reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, field_validator, model_validator

from grainline.adapters._parts import check_modules, check_patterns, check_unquantised, find_targets, task_type
from grainline.errors import ModelError, nearest
from grainline.types import spec

if TYPE_CHECKING:
    from torch import nn

_TOKEN_WISE = frozenset({
    "LORA", "BEFT", "BOFT", "C3A", "DEFT", "DELORA", "FOURIERFT", "FROD", "GLORA", "GRALORA", "HIRA", "HRA", "IA3",
    "LN_TUNING", "LOHA", "LOKR", "MISS", "OFT", "OSF", "PEANUT", "PSOFT", "RANDLORA", "ROAD", "SHIRA", "SUPERTUNING",
    "TINYLORA", "TRAINABLE_TOKENS", "UNILORA", "VBLORA", "VERA", "WAVEFT",
})  # fmt: skip
_RANDOM = frozenset({"PVERA"})
"""Draws anew for each position, in training."""
_WHOLE_WEIGHTS = frozenset({
    "ADAMSS", "DEFT", "DELORA", "FROD", "HRA", "LOHA", "LOKR", "PEANUT", "SUPERTUNING", "TINYLORA", "UNILORA",
})  # fmt: skip
"""PEFT reads or measures a weight as it is stored: in 4 bits that fails or, with UniLoRA, changes nothing."""
_OWN_TARGETS = frozenset({"BEFT", "IA3", "LN_TUNING", "TRAINABLE_TOKENS"})
"""What they change is not every linear layer; PEFT knows it by the architecture."""
_REFUSED = {
    "ADAPTION_PROMPT": "PEFT cannot hold it frozen, so a stored one could not be loaded",
    "ADALORA": "it shares out its ranks in a call after each step, which the loop does not make; lora is what is left",
    "CPT": "it needs to be told which tokens of its prompt are which",
    "LILY": "its router reads the mean of all tokens, later ones too, so a token would see its own future",
    "MIXED": "it is a container of adapters that exist",
    "MULTITASK_PROMPT_TUNING": "it needs the task of each row",
    "POLY": "it needs the task of each row",
    "SHADOW": "it runs a second network beside the layers, which reading a model's body alone leaves out",
    "XLORA": "it mixes adapters that are trained already",
}
_PROMPT = {
    "fresh is the base": "what the model reads begins with the prompt, however it starts",
    "two adapters": "PEFT trains every prompt that is on the model",
}
_CACHED = _PROMPT | {"layers recomputed": "PEFT hands its prompt over as cached keys, which recomputing forbids"}
_NEAR = {"fresh is the base": "it starts near the base: at the base itself it would have no gradient"}
_EXCEPTIONS = {
    "PROMPT_TUNING": _PROMPT,
    "P_TUNING": _PROMPT,
    "PREFIX_TUNING": _CACHED,
    "CARTRIDGE": _CACHED,
    "LN_TUNING": {"bfloat16 base": "a norm's scale is held as the base is: train with model.dtype=float32"},
    "UNILORA": _NEAR,
    "VBLORA": _NEAR,
}
_LORA_STARTS = ("pissa", "olora", "eva", "corda", "lora_ga", "loftq")
_ZERO_START = {"C3A": {"init_weights": True}, "FOURIERFT": {"init_weights": True}}
_OURS = frozenset({
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "target_modules", "layers_to_transform", "layers_pattern", "runtime_config",
})  # fmt: skip
"""Fields of PEFT's that are not options: they are said otherwise, or follow from the run."""


@spec
class PEFT:
    paper: ClassVar[str] = ""
    rest: ClassVar[str] = "options"
    roles: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("lora_A", "lora_embedding_A", "delora_A", "hira_A", "hira_embedding_A"), "down"),
        **dict.fromkeys(("lora_B", "lora_embedding_B", "delora_B", "hira_B", "hira_embedding_B"), "up"),
        **dict.fromkeys(("gralora_A", "gralora_A_general", "peanut_A", "supertuning_lora_A"), "down"),
        **dict.fromkeys(("gralora_B", "gralora_B_general", "peanut_B", "supertuning_lora_B"), "up"),
        **dict.fromkeys(("lora_magnitude_vector", "boft_s", "ia3_l", "road_alpha", "delora_lambda"), "magnitude"),
        **dict.fromkeys(("vera_lambda_b", "vera_lambda_d", "pvera_lambda_b", "pvera_lambda_d"), "magnitude"),
        **dict.fromkeys(("randlora_lambda", "randlora_gamma"), "magnitude"),
        **dict.fromkeys(("oft_R", "oft_embedding_R", "boft_R", "psoft_R", "road_theta"), "angle"),
        **dict.fromkeys(("fourierft_spectrum", "waveft_spectrum"), "spectrum"),
        "hra_u": "direction",
        "miss_block": "block",
        "prompt_encoder": "prompt",
    }

    type: str = "OFT"
    """PEFT's name of the tuner, in any case and with - or _: OFT, BOFT, HRA, VERA, IA3, ROAD, PSOFT, DELORA..."""
    targets: str | tuple[str, ...] = "auto"
    """Which modules change: auto (all linear layers without the output head; PEFT's own table for types that change
    something else), a list of names, or one regular expression that matches whole dotted names."""
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Layers that change, counted from 0; null = all."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Fields of PEFT's configuration of this type. Each may stand by itself: peft:type=OFT,oft_block_size=16."""

    @field_validator("type")
    @classmethod
    def _as_peft_writes_it(cls, type: str) -> str:
        return type.upper().replace("-", "_")

    @model_validator(mode="after")
    def _possible(self) -> PEFT:
        if self.type != "OFT" or self.options:  # the default needs no import of PEFT, which takes seconds
            self._check()
        return self

    def _check(self) -> None:
        if self.type in _REFUSED:
            raise ValueError(f"type={self.type} is not offered: {_REFUSED[self.type]}")
        cls, fields = _config_class(self.type), _fields(self.type)
        for name, value in self.options.items():
            if name not in fields:
                raise ValueError(f"{cls.__name__} has no field {name!r}. {nearest(name, fields)}")
            _check_value(name, value, fields[name])
        start = str(self.options.get("init_lora_weights", ""))
        if self.type == "LORA" and start.startswith(_LORA_STARTS):
            raise ValueError(f"write lora:init={start}, which knows how such a start is stored, or why it is refused")
        if "num_virtual_tokens" in fields and "num_virtual_tokens" not in self.options:
            raise ValueError(f"{self.type} needs num_virtual_tokens, the length of its prompt")
        if self.targets != "auto" and "target_modules" not in _all_fields(cls):
            raise ValueError(f"{self.type} changes no modules, so it has no targets")
        self._made(None, "CAUSAL_LM")

    def _made(self, targets: Any, task: str | None) -> Any:
        """PEFT's configuration.

        Raises:
            ValueError: PEFT refuses it.
        """
        cls = _config_class(self.type)
        options = {"task_type": task, **_ZERO_START.get(self.type, {}), **self.options}
        if targets is not None:
            options["target_modules"] = targets
        try:
            return cls(**options)
        except (ValueError, TypeError, AttributeError, ImportError) as error:
            raise ValueError(f"PEFT refuses it: {error}") from None

    @property
    def layouts(self) -> frozenset[str]:
        if self.type not in _TOKEN_WISE | _RANDOM:
            return frozenset({"padded"})
        # Dropout draws anew for every position: a shared prompt would be one draw where the plain model makes two.
        drops = any(value for name, value in self.options.items() if "dropout" in name)
        return frozenset({"packed", "padded"} | (set() if drops or self.type in _RANDOM else {"tree"}))

    @property
    def changes_base(self) -> bool:
        return self.options.get("bias", "none") != "none"

    @property
    def exceptions(self) -> dict[str, str]:
        return _EXCEPTIONS.get(self.type, {})

    def config(self, model: nn.Module) -> Any:
        """PEFT's configuration for ``model``.

        Raises:
            ModelError: a target, layer or module that the model does not have, an option that PEFT refuses, or weights
                in 4 bits that PEFT cannot read for this type.
        """
        if self.type in _WHOLE_WEIGHTS:
            check_unquantised(model, f"PEFT's {self.type}")
        check_modules(model, self.options.get("modules_to_save") or ())
        patterns = {name for key, said in self.options.items() if key.endswith("_pattern") for name in said}
        check_patterns(model, patterns)
        targets = self._targets(model)
        try:
            return self._made(targets, task_type(model))
        except ValueError as error:
            raise ModelError(f"{error}.", where=f"adapter: peft:type={self.type}") from None

    def _targets(self, model: nn.Module) -> Any:
        if self.targets != "auto":
            return find_targets(model, self.targets, self.layers)
        if "target_modules" not in _all_fields(_config_class(self.type)) or self.type in _OWN_TARGETS:
            if self.layers is not None:
                raise ModelError(f"{self.type} cannot choose layers.", where="adapter: layers", instead="Name targets.")
            return None
        return find_targets(model, "all-linear", self.layers)


# ------------------------------------------------------------------------------------------------- PEFT's dataclasses


def _config_class(type: str) -> Any:
    """PEFT's configuration class.

    Raises:
        ValueError: PEFT has no such type.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as CLASSES

    known = {str(getattr(key, "value", key)): cls for key, cls in CLASSES.items()}
    if type not in known:
        offered = [name for name in known if name not in _REFUSED and not name.startswith("GRAINLINE_")]
        raise ValueError(f"PEFT has no type {type!r}. {nearest(type, offered)}")
    return known[type]


def _all_fields(cls: Any) -> dict[str, Any]:
    """Name -> type of each field of a configuration."""
    import dataclasses
    import typing

    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def _fields(type: str) -> dict[str, Any]:
    """The fields that are options here: plain values, said nowhere else."""
    found = _all_fields(_config_class(type))
    return {name: hint for name, hint in found.items() if name not in _OURS and not name.endswith("_config")}


def _check_value(name: str, value: Any, hint: Any) -> None:
    import pydantic

    try:
        pydantic.TypeAdapter(hint).validate_python(value)
    except pydantic.ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Input ").rstrip(".")
        raise ValueError(f"{name} {reason}, got {value!r}") from None

"""What a masked diffusion language model is made of: sizes, numerics, special tokens. Families differ as data only.

Axis legend of the whole package:
  B batch, L length, P prompt, G canvas, W active window, D embed, F mlp, N heads, K kv heads, H head dim, V vocab;
  in attention T query, S key.
"""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from lrd_jax.errors import Refused
from lrd_jax.models.hf_fields import KINDS, false_friend, kind_of, plain
from lrd_jax.models.quantized import INT8

FAMILIES = ("llada", "dream", "illada", "fast-dllm-v2")


class LogitAlignment(enum.Enum):
    """Which position's hidden state holds the logits of position i."""

    SAME_POSITION = "same_position"  # LLaDA: position i itself
    SHIFTED = "shifted"  # Dream: position i - 1 (position 0 keeps its own)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes and conventions of one checkpoint; hashable, so that it can be a static argument of `jax.jit`.

    Attributes:
      family: name of the conversion table and chat format, one of `FAMILIES`.
      vocab_size: rows of the embedding table, padding rows included.
      max_length: longest prompt + canvas that the positions were trained for.
      rope_full_precision: rotate q and k in float32 (LLaDA); otherwise cos and sin are cast to their dtype (Dream).
      scale_logits: divide the logits by sqrt(D).
      attention_block: a position attends to its own block of so many, counted from a row's first token, and to those
        before it; None: to every position.
      quantized: "int8" where the blocks' matrices are integers with scales, see `lrd_jax.models.quantized`; else None.
      mask_id, eos_id, pad_id, bos_id, eot_id: special tokens; bos and eot (end of a chat turn) may be absent.
    """

    family: str
    vocab_size: int
    num_layers: int
    embed_dim: int
    mlp_dim: int
    num_heads: int
    num_kv_heads: int
    max_length: int
    rope_theta: float
    rope_full_precision: bool
    norm_eps: float
    qkv_bias: bool
    tied_head: bool
    scale_logits: bool
    alignment: LogitAlignment
    mask_id: int
    eos_id: int
    pad_id: int
    bos_id: int | None = None
    eot_id: int | None = None
    attention_block: int | None = None
    quantized: str | None = None

    def __post_init__(self):
        if problems := _problems(vars(self)):
            raise Refused("; ".join(problems))

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end a text: end-of-text and, where there is one, end-of-turn."""
        return (self.eos_id,) if self.eot_id is None else (self.eos_id, self.eot_id)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_json` reads it back."""
        return dataclasses.asdict(self) | {"alignment": self.alignment.value}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "ModelConfig":
        """The config that `to_json` wrote.

        Raises:
          ValueError: other fields, or what a field cannot hold.
        """
        known = {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(cls)}
        required = {name for name, is_required in known.items() if is_required}
        if not isinstance(fields, Mapping) or not required <= fields.keys() <= known.keys():
            raise Refused(f"the fields of a ModelConfig were wanted, {', '.join(known)}; got {_shown(fields)}")
        if fields["alignment"] not in [alignment.value for alignment in LogitAlignment]:
            raise Refused(f"alignment={_shown(fields['alignment'])} is unknown")
        return cls(**{**fields, "alignment": LogitAlignment(fields["alignment"])})

    @classmethod
    def from_hf(cls, hf: Mapping[str, Any]) -> "ModelConfig":
        """Reads a Hugging Face `config.json`, already parsed.

        Raises:
          ValueError: an unknown `model_type`, fields that are missing or of the wrong type or range, or values that ask
            for something that is not built; every problem is named in one message.
        """
        if not isinstance(hf, Mapping):
            raise Refused(f"config.json holds {_shown(hf)}, an object was wanted")
        hf, model_type = plain(hf), hf.get("model_type")
        if sentence := false_friend(hf):
            raise Refused(f"model_type {_shown(model_type)} is not supported: {sentence}")
        kind = kind_of(hf)
        if kind is None:
            known = ", ".join(map(repr, KINDS))
            raise Refused(f"model_type {_shown(model_type)} is not supported; known: {known}")
        problems = [
            f"{name}={_shown(hf[name])} (only {value!r} is built)"
            for name, value in KINDS[kind].fixed.items()
            if name in hf and (type(hf[name]) is not type(value) or hf[name] != value)
        ]
        values, named = KINDS[kind].read(hf)
        values["alignment"] = LogitAlignment(values["alignment"])
        problems += [f"{named[field]} is missing" for field in named if field not in values]
        problems += _problems(values, named)
        if problems:
            raise Refused(f"config.json of model_type {model_type!r}: " + "; ".join(dict.fromkeys(problems)))
        found: dict[str, Any] = values | {name: float(values[name]) for name in _NUMBERS}
        return cls(**found)


# What a field may be. Sizes and ids are indices of 32 bits, and a model of more blocks would not end.
_MOST = 2**31 - 1
_SIZES = {
    "vocab_size": _MOST,
    "num_layers": 4096,
    "embed_dim": _MOST,
    "mlp_dim": _MOST,
    "num_heads": _MOST,
    "num_kv_heads": _MOST,
    "max_length": _MOST,
}
_NUMBERS = {"rope_theta": (1, 1e30), "norm_eps": (0, 1)}  # above and below
_FLAGS = ("rope_full_precision", "qkv_bias", "tied_head", "scale_logits")
_IDS = ("mask_id", "eos_id", "pad_id", "bos_id", "eot_id")
_OPTIONAL = ("bos_id", "eot_id")


def _problems(values: Mapping[str, Any], named: Mapping[str, str] | None = None) -> list[str]:
    """What is wrong with those fields that are there.

    Args:
      named: what a field is called where it was read.
    """
    problems, good = [], {}

    def name(field: str) -> str:
        return (named or {}).get(field, field)

    def wanted(field: str, what: str | None) -> None:
        if what is None:
            good[field] = values[field]
        else:
            problems.append(f"{name(field)}={_shown(values[field])} must be {what}")

    for field, most in _SIZES.items():
        if field in values:
            wanted(field, _size_wish(values[field], most))
    for field, (above, below) in _NUMBERS.items():
        if field in values:
            fits = type(values[field]) in (int, float) and above < values[field] < below
            wanted(field, None if fits else f"a number above {above} and below {below}")
    if values.get("attention_block") is not None:
        wanted("attention_block", _size_wish(values["attention_block"], _MOST))
    for field in _FLAGS:
        if field in values:
            wanted(field, None if type(values[field]) is bool else "true or false")
    for field in _IDS:
        if field in values and not (field in _OPTIONAL and values[field] is None):
            wanted(field, None if type(values[field]) is int else "an integer")
    if "family" in values:
        wanted("family", None if values["family"] in FAMILIES else f"one of {', '.join(map(repr, FAMILIES))}")
    if "quantized" in values:
        wanted("quantized", None if values["quantized"] in (None, INT8) else f"{INT8!r} or None")
    if "alignment" in values:
        wanted("alignment", None if isinstance(values["alignment"], LogitAlignment) else "a LogitAlignment")

    def said(field: str) -> str:
        return f"{name(field)}={good[field]}"

    if {"embed_dim", "num_heads"} <= good.keys():
        embed_dim, num_heads = good["embed_dim"], good["num_heads"]
        if embed_dim % num_heads or embed_dim // num_heads % 2:
            problems.append(f"{said('embed_dim')} must be {said('num_heads')} times an even head dimension")
    if {"num_heads", "num_kv_heads"} <= good.keys() and good["num_heads"] % good["num_kv_heads"]:
        problems.append(f"{said('num_kv_heads')} must divide {said('num_heads')}")
    if "vocab_size" in good:
        problems += [
            f"{said(field)} is outside the vocabulary of {good['vocab_size']}"
            for field in _IDS
            if field in good and not 0 <= good[field] < good["vocab_size"]
        ]
    problems += [
        f"{said(field)} is {said('mask_id')}: a mask cannot end a text"
        for field in ("eos_id", "eot_id")
        if {field, "mask_id"} <= good.keys() and good[field] == good["mask_id"]
    ]
    return problems


def _size_wish(value: Any, most: int) -> str | None:
    """What a size should have been; None where it is one."""
    if type(value) is not int:
        return "an integer"
    if value < 1:
        return "positive"
    return None if value <= most else f"at most {most}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

"""What a masked diffusion language model is made of: sizes, numerics, special tokens. Families differ as data only.

Axis legend of the whole package:
  B batch, L length, P prompt, G canvas, W active window, D embed, F mlp, N heads, K kv heads, H head dim, V vocab;
  in attention T query, S key.
"""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, TypeVar

_Default = TypeVar("_Default")


class LogitAlignment(enum.Enum):
    """Which position's hidden state holds the logits of position i."""

    SAME_POSITION = "same_position"  # LLaDA: position i itself
    SHIFTED = "shifted"  # Dream: position i - 1 (position 0 keeps its own)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes and conventions of one checkpoint; hashable, so that it can be a static argument of `jax.jit`.

    Attributes:
      family: name of the conversion table and chat format, "llada" or "dream".
      vocab_size: rows of the embedding table, padding rows included.
      max_length: longest prompt + canvas that the positions were trained for.
      rope_full_precision: rotate q and k in float32 (LLaDA); otherwise cos and sin are cast to their dtype (Dream).
      scale_logits: divide the logits by sqrt(D).
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

    def __post_init__(self):
        problems = [
            f"{name}={getattr(self, name)} must be positive"
            for name in ("vocab_size", "num_layers", "embed_dim", "mlp_dim", "num_heads", "num_kv_heads", "max_length")
            if getattr(self, name) < 1
        ]
        if not problems:
            if self.embed_dim % self.num_heads or self.head_dim % 2:
                problems.append(
                    f"embed_dim={self.embed_dim} must be num_heads={self.num_heads} times an even head dimension"
                )
            if self.num_heads % self.num_kv_heads:
                problems.append(f"num_kv_heads={self.num_kv_heads} must divide num_heads={self.num_heads}")
            problems += [
                f"{name}={getattr(self, name)} is outside the vocabulary of {self.vocab_size}"
                for name in ("mask_id", "eos_id", "pad_id", "bos_id", "eot_id")
                if getattr(self, name) is not None and not 0 <= getattr(self, name) < self.vocab_size
            ]
        if problems:
            raise ValueError("; ".join(problems))

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
        return cls(**{**fields, "alignment": LogitAlignment(fields["alignment"])})

    @classmethod
    def from_hf(cls, hf: Mapping[str, Any]) -> "ModelConfig":
        """Reads a Hugging Face `config.json`, already parsed.

        Raises:
          ValueError: an unknown `model_type`, missing fields, or values that ask for something that is not built;
            every problem is named in one message.
        """
        families = {"llada": _from_llada, "Dream": _from_dream}
        model_type = hf.get("model_type")
        if model_type not in families:
            raise ValueError(f"model_type {model_type!r} is not supported; known: {', '.join(map(repr, families))}")
        return families[model_type](hf)


# Fields that must hold exactly these values: others select parts of the original code that are not built here.
_LLADA_FIXED = {
    "activation_type": "silu",
    "alibi": False,
    "attention_layer_norm": False,
    "bias_for_layer_norm": False,
    "block_group_size": 1,
    "block_type": "llama",
    "include_bias": False,
    "input_emb_norm": False,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "rope": True,
}
_DREAM_FIXED = {"hidden_act": "silu", "rope_scaling": None, "use_mrope": False, "use_sliding_window": False}


def _check(hf: Mapping[str, Any], fixed: Mapping[str, Any], required: tuple[str, ...]) -> None:
    problems = [f"{k}={hf[k]!r} (only {v!r} is built)" for k, v in fixed.items() if k in hf and hf[k] != v]
    problems += [f"{k} is missing" for k in required if hf.get(k) is None]
    if problems:
        raise ValueError(f"config.json of model_type {hf['model_type']!r}: " + "; ".join(problems))


def _from_llada(hf: Mapping[str, Any]) -> ModelConfig:
    required = ("d_model", "n_heads", "n_layers", "mlp_hidden_size", "vocab_size", "max_sequence_length")
    _check(hf, _LLADA_FIXED, (*required, "mask_token_id", "eos_token_id"))
    kv_heads = hf.get("n_kv_heads") or (1 if hf.get("multi_query_attention") else hf["n_heads"])
    return ModelConfig(
        family="llada",
        vocab_size=hf.get("embedding_size") or hf["vocab_size"],
        num_layers=hf["n_layers"],
        embed_dim=hf["d_model"],
        mlp_dim=hf["mlp_hidden_size"],
        num_heads=hf["n_heads"],
        num_kv_heads=kv_heads,
        max_length=hf["max_sequence_length"],
        rope_theta=float(hf.get("rope_theta", 10000.0)),
        rope_full_precision=hf.get("rope_full_precision", True),
        norm_eps=hf.get("rms_norm_eps", 1e-5),
        qkv_bias=bool(hf.get("include_qkv_bias", False)),
        tied_head=hf.get("weight_tying", True),
        scale_logits=hf.get("scale_logits", False),
        alignment=LogitAlignment.SAME_POSITION,
        mask_id=hf["mask_token_id"],
        eos_id=hf["eos_token_id"],
        pad_id=_first(hf.get("pad_token_id"), hf["eos_token_id"]),
        **_special(hf),
    )


def _from_dream(hf: Mapping[str, Any]) -> ModelConfig:
    required = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "vocab_size")
    _check(hf, _DREAM_FIXED, (*required, "max_position_embeddings", "mask_token_id", "eos_token_id"))
    return ModelConfig(
        family="dream",
        vocab_size=hf["vocab_size"],
        num_layers=hf["num_hidden_layers"],
        embed_dim=hf["hidden_size"],
        mlp_dim=hf["intermediate_size"],
        num_heads=hf["num_attention_heads"],
        num_kv_heads=hf.get("num_key_value_heads") or hf["num_attention_heads"],
        max_length=hf["max_position_embeddings"],
        rope_theta=float(hf.get("rope_theta", 10000.0)),
        rope_full_precision=False,
        norm_eps=hf.get("rms_norm_eps", 1e-6),
        qkv_bias=True,
        tied_head=hf.get("tie_word_embeddings", False),
        scale_logits=False,
        alignment=LogitAlignment.SHIFTED,
        mask_id=hf["mask_token_id"],
        eos_id=hf["eos_token_id"],
        pad_id=_first(hf.get("pad_token_id"), hf["eos_token_id"]),
        **_special(hf),
    )


def _first(value: int | None, default: _Default) -> int | _Default:
    return default if value is None else value


def _special(hf: Mapping[str, Any]) -> dict[str, int | None]:
    """bos and eot; the released LLaDA and Dream config files leave out what their tokenizers fix by vocabulary."""
    known = {("llada", 126464): (126080, 126348), ("Dream", 152064): (151665, 151645)}
    size = hf.get("embedding_size") or hf["vocab_size"]
    bos, eot = known.get((hf["model_type"], size), (None, None))
    return {"bos_id": _first(hf.get("bos_token_id"), bos), "eot_id": _first(hf.get("eot_token_id"), eot)}

"""The `config.json` of each kind of checkpoint: which field says what, what is fixed, and which kinds are not built.

The values are those of `ModelConfig`, not yet checked.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

Read = tuple[dict[str, Any], dict[str, str]]  # values by field, and what each field is called in the file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of config file that is read.

    Attributes:
      read: takes its fields.
      fixed: fields that must hold exactly these values, where they are there: others select parts of the original code
        that are not built here.
    """

    read: Callable[[Mapping[str, Any]], Read]
    fixed: Mapping[str, Any]


def kind_of(hf: Mapping[str, Any]) -> str | None:
    """The name of a config file's kind, a key of `KINDS`; None where it is none of them."""
    for architecture, kind in _BY_ARCHITECTURE.items():
        if architecture in _architectures(hf):
            return kind
    model_type = hf.get("model_type")
    return model_type if isinstance(model_type, str) and model_type in KINDS else None


def false_friend(hf: Mapping[str, Any]) -> str | None:
    """What tells a config file, in a sentence, from those that are read, where it is known to be another model's."""
    names = {str(hf.get("model_type")), *_architectures(hf)}
    for known, sentence in _FALSE_FRIENDS.items():
        if names & known:
            return sentence
    if "Dream" in names and (hf.get("attention_bias") is False or hf.get("mask_token_id") == _QWEN3_MASK):
        return _DREAM_REASONER
    if "llada" in names and hf.get("num_experts"):
        return _LLADA_MOE
    return None


def plain(hf: Mapping[str, Any]) -> Mapping[str, Any]:
    """A config file without what says nothing: a scaling of the rotary positions that scales nothing."""
    scaling = hf.get("rope_scaling")
    if (
        isinstance(scaling, Mapping)
        and scaling.items() <= {"type": "default", "rope_type": "default", "factor": 1.0}.items()
    ):
        return {**hf, "rope_scaling": None}
    return hf


def _architectures(hf: Mapping[str, Any]) -> list[str]:
    found = hf.get("architectures")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _from_llada(hf: Mapping[str, Any]) -> Read:
    values, named = _read(
        hf,
        {
            "vocab_size": ("vocab_size", _REQUIRED),
            "num_layers": ("n_layers", _REQUIRED),
            "embed_dim": ("d_model", _REQUIRED),
            "mlp_dim": ("mlp_hidden_size", _REQUIRED),
            "num_heads": ("n_heads", _REQUIRED),
            "max_length": ("max_sequence_length", _REQUIRED),
            "rope_theta": ("rope_theta", 10000.0),
            "rope_full_precision": ("rope_full_precision", True),
            "norm_eps": ("rms_norm_eps", 1e-5),
            "qkv_bias": ("include_qkv_bias", False),
            "tied_head": ("weight_tying", True),
            "scale_logits": ("scale_logits", False),
        },
    )
    _or_that_of(hf, values, named, "num_kv_heads", "n_kv_heads", "num_heads")
    if hf.get("multi_query_attention") and hf.get("n_kv_heads") is None:
        values["num_kv_heads"] = 1
    if type(hf.get("vocab_size")) is int:
        _or_that_of(hf, values, named, "vocab_size", "embedding_size", "vocab_size")  # rows of padding included
    return values | {"family": "llada", "alignment": "same_position"}, named


_LLAMA_NAMES = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "embed_dim": "hidden_size",
    "mlp_dim": "intermediate_size",
    "num_heads": "num_attention_heads",
    "max_length": "max_position_embeddings",
    "rope_theta": "rope_theta",
    "norm_eps": "rms_norm_eps",
    "tied_head": "tie_word_embeddings",
}


def _from_llama_names(hf: Mapping[str, Any], defaults: Mapping[str, Any]) -> Read:
    fields = {field: (name, defaults.get(field, _REQUIRED)) for field, name in _LLAMA_NAMES.items()}
    values, named = _read(hf, fields)
    _or_that_of(hf, values, named, "num_kv_heads", "num_key_value_heads", "num_heads")
    return values | {"rope_full_precision": False, "scale_logits": False}, named


def _from_dream(hf: Mapping[str, Any]) -> Read:
    values, named = _from_llama_names(hf, {"rope_theta": 10000.0, "norm_eps": 1e-6, "tied_head": False})
    return values | {"family": "dream", "qkv_bias": True, "alignment": "shifted"}, named


def _from_illada(hf: Mapping[str, Any]) -> Read:
    values, named = _from_llama_names(hf, {})
    return values | {"family": "illada", "qkv_bias": False, "alignment": "same_position"}, named


def _from_fast_dllm(hf: Mapping[str, Any]) -> Read:
    values, named = _from_llama_names(hf, {"rope_theta": 1000000.0, "norm_eps": 1e-6, "tied_head": False})
    values["attention_block"], named["attention_block"] = hf.get("bd_size", 32), "bd_size"
    return values | {"family": "fast-dllm-v2", "qkv_bias": True, "alignment": "shifted"}, named


_REQUIRED = object()

# What the released config files leave out because their tokenizers fix it, by kind and vocabulary.
_KNOWN_IDS = {
    ("llada", 126464): {"bos_id": 126080, "eot_id": 126348},
    ("Dream", 152064): {"bos_id": 151665, "eot_id": 151645},
    ("illada", 155136): {"mask_id": 5},
    ("Fast_dLLM_Qwen", 152064): {"mask_id": 151665},
    ("Fast_dLLM_Qwen", 151936): {"mask_id": 151665},
}


def _read(hf: Mapping[str, Any], fields: Mapping[str, tuple[str, Any]]) -> Read:
    """The fields, by (name in the file, default), and the special tokens; null is as good as absent."""
    rows = hf.get("embedding_size") or hf.get("vocab_size")
    known = _KNOWN_IDS.get((kind_of(hf) or "", rows if isinstance(rows, int) else 0), {})
    fields = {
        **fields,
        "mask_id": ("mask_token_id", known.get("mask_id", _REQUIRED)),
        "eos_id": ("eos_token_id", _REQUIRED),
        "bos_id": ("bos_token_id", known.get("bos_id")),
        "eot_id": ("eot_token_id", known.get("eot_id")),
    }
    named = {field: name for field, (name, _) in fields.items()}
    found = {field: default if hf.get(name) is None else hf[name] for field, (name, default) in fields.items()}
    values = {field: value for field, value in found.items() if value is not _REQUIRED}
    _or_that_of(hf, values, named, "pad_id", "pad_token_id", "eos_id")
    return values, named


def _or_that_of(
    hf: Mapping[str, Any], values: dict[str, Any], named: dict[str, str], field: str, name: str, other: str
) -> None:
    """Reads a field that stands under `name`, or else is what another field is."""
    if hf.get(name) is not None:
        values[field], named[field] = hf[name], name
    elif other in values:
        values[field], named[field] = values[other], named[other]


KINDS = {
    "llada": Kind(
        read=_from_llada,
        fixed={
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
        },
    ),
    "Dream": Kind(
        read=_from_dream,
        fixed={"hidden_act": "silu", "rope_scaling": None, "use_mrope": False, "use_sliding_window": False},
    ),
    "Fast_dLLM_Qwen": Kind(
        read=_from_fast_dllm,
        fixed={"hidden_act": "silu", "rope_scaling": None, "use_sliding_window": False},
    ),
    "illada": Kind(
        read=_from_illada,
        fixed={
            "attention_bias": False,
            "hidden_act": "silu",
            "layer_norm_eps": None,
            "mlp_bias": False,
            "rope_scaling": None,
        },
    ),
}

_BY_ARCHITECTURE = {"ILLaDAForCausalLM": "illada", "Fast_dLLM_QwenForCausalLM": "Fast_dLLM_Qwen"}

_QWEN3_MASK = 151669
_DREAM_REASONER = (
    "this is Qwen3 under Dream's name (DreamReasoner): nothing has a bias, attention goes block by block, and queries "
    "and keys are normalised, which is not built"
)
_LLADA_MOE = (
    "LLaDA-MoE has a mixture of experts in every block and normalised queries and keys, which are not built; LLaDA is "
    "the dense model"
)
_LLADOU = (
    "LLaDOU is LLaDA with a policy head that chooses the positions to commit, which is not built (docs/conversion.md)"
)
_FALSE_FRIENDS = {
    frozenset({"LLaDOUModelLM"}): _LLADOU,
    frozenset({"DreamReasonerModel", "DreamReasonerForCausalLM", "dream_reasoner"}): _DREAM_REASONER,
    frozenset({"LLaDAMoEModel", "LLaDAMoEModelLM", "lladamoe", "llada_moe"}): _LLADA_MOE,
    frozenset({"LLaDA2MoeModelLM", "llada2_moe"}): (
        "LLaDA2 has a mixture of experts in its blocks and rotates a part of each head, which are not built"
    ),
    frozenset({"SDARForCausalLM", "sdar"}): (
        "SDAR is Qwen3, whose queries and keys are normalised, which is not built; its attention, block by block, is"
    ),
    frozenset({"SDARMoeForCausalLM", "sdar_moe"}): "SDAR's mixture of experts is not built",
}

# Endings of tensors' names by which such a model is known where its config file says nothing, by family.
TELLTALES = {
    "dream": (".self_attn.q_norm.weight", _DREAM_REASONER),
    "llada": ("mask_linear.weight", _LLADOU),
}

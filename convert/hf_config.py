"""The `config.json` of a model that was made here: `ModelConfig.from_hf` read backwards."""

from typing import Any

from lrd_jax.errors import Refused
from lrd_jax.models import ModelConfig


def to_hf(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """A Hugging Face config of the family; `dtype` names the weights' dtype ("bfloat16").

    Raises:
      ValueError: the family's file format cannot say what this config says.
    """
    hf = _FAMILIES[config.family](config)
    hf |= {
        "mask_token_id": config.mask_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
        "torch_dtype": dtype,
        "vocab_size": config.vocab_size,
    }
    hf |= {k: v for k, v in (("bos_token_id", config.bos_id), ("eot_token_id", config.eot_id)) if v is not None}
    read_back = ModelConfig.from_hf(hf)
    if read_back != config:
        got, wanted = read_back.to_json(), config.to_json()
        differ = ", ".join(f"{k}={wanted[k]!r} (reads back {got[k]!r})" for k in wanted if got[k] != wanted[k])
        raise Refused(f"a config.json of family {config.family!r} cannot hold {differ}")
    return hf


def _llada(config: ModelConfig) -> dict[str, Any]:
    return {
        "architectures": ["LLaDAModelLM"],
        "model_type": "llada",
        "activation_type": "silu",
        "block_type": "llama",
        "layer_norm_type": "rms",
        "rope": True,
        "include_bias": False,
        "include_qkv_bias": config.qkv_bias,
        "d_model": config.embed_dim,
        "embedding_size": config.vocab_size,
        "max_sequence_length": config.max_length,
        "mlp_hidden_size": config.mlp_dim,
        "n_heads": config.num_heads,
        "n_kv_heads": config.num_kv_heads,
        "n_layers": config.num_layers,
        "rms_norm_eps": config.norm_eps,
        "rope_full_precision": config.rope_full_precision,
        "rope_theta": config.rope_theta,
        "scale_logits": config.scale_logits,
        "weight_tying": config.tied_head,
    }


def _dream(config: ModelConfig) -> dict[str, Any]:
    return {"architectures": ["DreamModel"], "model_type": "Dream", **_llama_names(config)}


def _illada(config: ModelConfig) -> dict[str, Any]:
    biases = {"attention_bias": False, "mlp_bias": False}
    return {"architectures": ["ILLaDAForCausalLM"], "model_type": "illada", **biases, **_llama_names(config)}


def _fast_dllm(config: ModelConfig) -> dict[str, Any]:
    names = {"architectures": ["Fast_dLLM_QwenForCausalLM"], "model_type": "Fast_dLLM_Qwen"}
    return {**names, "bd_size": config.attention_block, **_llama_names(config)}


def _llama_names(config: ModelConfig) -> dict[str, Any]:
    return {
        "hidden_act": "silu",
        "hidden_size": config.embed_dim,
        "intermediate_size": config.mlp_dim,
        "max_position_embeddings": config.max_length,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_kv_heads,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied_head,
    }


_FAMILIES = {"llada": _llada, "dream": _dream, "illada": _illada, "fast-dllm-v2": _fast_dllm}

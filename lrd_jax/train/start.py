"""Where a run starts: random weights of a new model, or the weights and tokenizer of a checkpoint."""

import jax
import jax.numpy as jnp
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lrd_jax.models import LogitAlignment, Model, ModelConfig
from lrd_jax.models.transformer import Params
from lrd_jax.tasks import TASKS
from lrd_jax.tasks.tokenizer import build_tokenizer
from lrd_jax.train.config import Scratch, TrainConfig


def starting_point(config: TrainConfig) -> tuple[Model, Params, PreTrainedTokenizerBase]:
    """Model, float32 parameters and tokenizer of a run."""
    if config.init is not None:
        raise NotImplementedError
    if config.model.tokenizer is None:
        tokenizer = build_tokenizer(tuple(TASKS[name] for name in config.data.tasks))
    else:
        tokenizer = AutoTokenizer.from_pretrained(config.model.tokenizer)
    model = Model(new_model_config(config.model, tokenizer))
    return model, model.init(jax.random.key(config.seed), jnp.float32), tokenizer


def new_model_config(sizes: Scratch, tokenizer: PreTrainedTokenizerBase) -> ModelConfig:
    """LLaDA's architecture at the given sizes, with the tokenizer's vocabulary and special tokens."""
    return ModelConfig(
        family="llada",
        vocab_size=len(tokenizer),
        num_layers=sizes.num_layers,
        embed_dim=sizes.embed_dim,
        mlp_dim=sizes.mlp_dim,
        num_heads=sizes.num_heads,
        num_kv_heads=sizes.num_heads,
        max_length=sizes.max_length,
        rope_theta=10000.0,
        rope_full_precision=True,
        norm_eps=1e-5,
        qkv_bias=False,
        tied_head=False,
        scale_logits=False,
        alignment=LogitAlignment.SAME_POSITION,
        mask_id=tokenizer.mask_token_id,
        eos_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
    )

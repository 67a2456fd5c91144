"""Where a run starts: random weights of a new model, or the weights and tokenizer of a checkpoint."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lrd_jax.checkpoint import load
from lrd_jax.models import Model, ModelConfig
from lrd_jax.models.checkpoints import CHECKPOINTS
from lrd_jax.models.transformer import Params
from lrd_jax.sharding import param_shardings
from lrd_jax.tasks import TRAINABLE
from lrd_jax.tasks.tokenizer import build_tokenizer
from lrd_jax.train.config import Scratch, TrainConfig


def starting_point(config: TrainConfig, mesh: jax.sharding.Mesh) -> tuple[Model, Params, PreTrainedTokenizerBase]:
    """Model, float32 parameters on the mesh, and tokenizer of a run.

    Raises:
      ValueError: the checkpoint cannot be loaded or brings no tokenizer, or a new model cannot be as asked.
    """
    if config.init is not None:
        loaded = load(config.init, mesh=mesh, dtype=jnp.float32)
        if loaded.tokenizer is None:
            raise ValueError(f"init: {config.init} has no tokenizer; copy its tokenizer.json beside the weights")
        return loaded.model, loaded.params, loaded.tokenizer.hf
    if config.model.tokenizer is not None:
        tokenizer = AutoTokenizer.from_pretrained(config.model.tokenizer)
    else:
        tokenizer = build_tokenizer(tuple(TRAINABLE[name] for name in dict.fromkeys(config.data.tasks)))
    model = Model(new_model_config(config.model, tokenizer))
    init = jax.jit(functools.partial(new_params, model), out_shardings=param_shardings(model, mesh))
    return model, init(jax.random.key(config.seed)), tokenizer


def new_params(model: Model, key: jax.Array) -> Params:
    """Random float32 parameters that small widths learn from.

    `Model.init` draws with a standard deviation of 0.02, right for thousands of channels; here everything is scaled to
    1 / sqrt(D). The head starts as the transpose of the table: copying a token then is one direction to learn for the
    whole vocabulary, instead of one for each token.
    """
    params = model.init(key, jnp.float32)
    scale = model.config.embed_dim**-0.5 / 0.02
    params = jax.tree.map_with_path(lambda path, x: x if path[-1].key.endswith("norm") else scale * x, params)
    return params | {"head": params["table"].T}


def new_model_config(sizes: Scratch, tokenizer: PreTrainedTokenizerBase) -> ModelConfig:
    """LLaDA's architecture at the given sizes, with the tokenizer's vocabulary and special tokens."""
    special = {"mask_token": tokenizer.mask_token_id, "eos_token": tokenizer.eos_token_id}
    if missing := [name for name, token in special.items() if token is None]:
        raise ValueError(f"model.tokenizer: {sizes.tokenizer} names no {' and no '.join(missing)}")
    return dataclasses.replace(
        CHECKPOINTS["llada-8b-base"].config,
        vocab_size=len(tokenizer),
        num_layers=sizes.num_layers,
        embed_dim=sizes.embed_dim,
        mlp_dim=sizes.mlp_dim,
        num_heads=sizes.num_heads,
        num_kv_heads=sizes.num_heads,
        max_length=sizes.max_length,
        rope_theta=10000.0,
        mask_id=tokenizer.mask_token_id,
        eos_id=tokenizer.eos_token_id,
        pad_id=tokenizer.eos_token_id,
        bos_id=None,
        eot_id=None,
    )

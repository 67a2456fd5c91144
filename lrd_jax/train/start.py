"""Where a run starts: its model and tokenizer, known before any weight is made or read, and its parameters."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lrd_jax.checkpoint import find_model, load
from lrd_jax.convert.reader import open_source
from lrd_jax.convert.store import is_checkpoint, read_info
from lrd_jax.convert.weights import open_weights
from lrd_jax.errors import Refused
from lrd_jax.models import Model, ModelConfig
from lrd_jax.models.checkpoints import CHECKPOINTS
from lrd_jax.models.transformer import Params
from lrd_jax.sharding import fit_params, padded_params, param_shardings
from lrd_jax.tasks import TRAINABLE
from lrd_jax.tasks.tokenizer import build_tokenizer
from lrd_jax.text import has_tokenizer, load_tokenizer
from lrd_jax.train.config import Scratch, TrainConfig
from lrd_jax.train.lora import fresh_adapters


def model_and_tokenizer(config: TrainConfig) -> tuple[Model, PreTrainedTokenizerBase]:
    """Model and tokenizer of a run; no weight is read.

    Raises:
      ValueError: the checkpoint cannot be loaded or brings no tokenizer, or a new model cannot be as asked.
    """
    if config.init is not None:
        folder = find_model(config.init)
        model = read_info(folder).config if is_checkpoint(folder) else open_source(folder, uniform=False).config
        if model.quantized is not None:
            raise Refused(f"init: {config.init} holds {model.quantized} weights; give the checkpoint it was made from")
        if not has_tokenizer(folder):
            raise Refused(f"init: {config.init} has no tokenizer; copy its tokenizer.json beside the weights")
        return Model(model), load_tokenizer(folder, model).hf
    if config.model.tokenizer is not None:
        tokenizer = _read_tokenizer(Path(config.model.tokenizer))
    else:
        tokenizer = build_tokenizer(tuple(TRAINABLE[name] for name in dict.fromkeys(config.data.tasks)))
    return Model(new_model_config(config.model, tokenizer)), tokenizer


def starting_params(config: TrainConfig, model: Model, mesh: jax.sharding.Mesh) -> Params:
    """What is trained, as it is before the first step, on the mesh: float32 parameters, or adapters."""
    if config.lora is not None:
        return fresh_adapters(model, config.lora, mesh, config.seed)
    if config.init is not None:
        return load(config.init, mesh=mesh, dtype=jnp.float32).params
    lengths = padded_params(model, mesh)
    init = jax.jit(
        lambda key: fit_params(model, new_params(model, key), lengths), out_shardings=param_shardings(model, mesh)
    )
    return init(jax.random.key(config.seed))


def held_dtype(config: TrainConfig) -> str:
    """The dtype that a run holds its model in: float32, or under adapters that of the stored embedding table."""
    if config.lora is None:
        return "float32"
    return open_weights(find_model(config.init)).dtypes[("table",)].name


def frozen_params(config: TrainConfig, mesh: jax.sharding.Mesh) -> Params | None:
    """The parameters that adapters stand beside, on the mesh; None where all of a model is trained."""
    return None if config.lora is None else load(config.init, mesh=mesh, dtype=held_dtype(config)).params


def _read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    if not (folder / "tokenizer.json").is_file():
        raise Refused(f"model.tokenizer: {folder} is no folder with a tokenizer.json")
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    except Exception as error:  # the libraries raise nothing more specific
        raise Refused(f"model.tokenizer: the tokenizer in {folder} cannot be read: {error}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


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
        raise Refused(f"model.tokenizer: {sizes.tokenizer} names no {' and no '.join(missing)}")
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

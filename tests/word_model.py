"""A tiny LLaDA of random weights over the words of the embedded models' tasks, which knows no others."""

import jax
import jax.numpy as jnp

from lrd_jax.convert import write_hf
from lrd_jax.models import Model
from lrd_jax.tasks import TASKS
from lrd_jax.tasks.tokenizer import build_tokenizer
from lrd_jax.train.config import Scratch
from lrd_jax.train.start import new_model_config


def write_word_model(root, change=lambda leaf: leaf):
    """The path of a Hugging Face folder; `change` is applied to every parameter."""
    tokenizer = build_tokenizer(tuple(TASKS.values()))
    tokenizer.save_pretrained(root / "tokenizer")
    sizes = Scratch(num_layers=1, embed_dim=32, mlp_dim=64, num_heads=2, max_length=128)
    config = new_model_config(sizes, tokenizer)
    params = jax.tree.map(change, Model(config).init(jax.random.key(1), jnp.float32))
    write_hf(params, config, root / "model", tokenizer=root / "tokenizer")
    return str(root / "model")

"""Models to time: a checkpoint, or random weights of any size."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lrd_jax.convert.reader import weight_dtype
from lrd_jax.errors import Refused
from lrd_jax.models import CHECKPOINTS, Model, ModelConfig
from lrd_jax.models.transformer import Params
from lrd_jax.sharding import param_shardings

_INIT_STD = 0.02  # of the head's weights, see `lrd_jax.models.transformer`
_ATTENTION_GAIN = 5.0

_SMALL = {"num_layers": 8, "embed_dim": 512, "mlp_dim": 1376, "num_heads": 8, "num_kv_heads": 8}

SIZES: dict[str, ModelConfig] = {
    "small": dataclasses.replace(CHECKPOINTS["llada-8b-base"].config, **_SMALL),
    # A tied head cannot be drawn so that special tokens are never predicted: they would have no embedding.
    **{name: preset.config for name, preset in CHECKPOINTS.items() if not preset.config.tied_head},
}


def sized(name: str, **changes: int) -> ModelConfig:
    """The sizes called `name`, some of them changed.

    Another vocabulary has its special tokens at its end.

    Raises:
      ValueError: an unknown name, or sizes that make no model.
    """
    if name not in SIZES:
        raise Refused(f"sizes={name!r} is unknown; choose one of {', '.join(SIZES)}")
    config = SIZES[name]
    if "num_heads" in changes:
        changes["num_kv_heads"] = max(1, changes["num_heads"] * config.num_kv_heads // config.num_heads)
    if "vocab_size" in changes:
        V = changes["vocab_size"]
        changes |= {"mask_id": V - 1, "eos_id": V - 2, "pad_id": V - 2, "bos_id": None, "eot_id": None}
    return dataclasses.replace(config, **changes)


def random_params(
    config: ModelConfig, *, dtype: str, logit_std: float | None, seed: int, mesh: Mesh | None = None
) -> Params:
    """Random weights that decode as trained ones do: positions differ, and no special token is ever predicted.

    At the initial scale attention is so even that all masked positions predict the same token, and which one is
    committed first is a matter of rounding; queries and keys are therefore larger.

    Args:
      dtype: one for weights; any other is refused by a ValueError.
      mesh: that they lie on; None: one device.
      logit_std: standard deviation of the logits, nats; None leaves the initial one, which is nearly flat.
    """
    model, kind = Model(config), weight_dtype(dtype)
    gain = 1.0 if logit_std is None else logit_std / (_INIT_STD * math.sqrt(config.embed_dim))
    special = jnp.asarray(special_ids(config))

    @functools.partial(jax.jit, out_shardings=None if mesh is None else param_shardings(model, mesh))
    def draw(key):
        params = model.init(key, kind)
        blocks = params["blocks"] | {name: params["blocks"][name] * _ATTENTION_GAIN for name in ("q", "k")}
        return params | {"blocks": blocks, "head": (params["head"] * gain).at[:, special].set(0)}

    return draw(jax.random.key(seed))


def random_prompts(config: ModelConfig, batch: int, length: int, seed: int) -> np.ndarray:
    """int32 `[batch, length]`, without special tokens."""
    words = np.setdiff1d(np.arange(config.vocab_size), special_ids(config))
    return np.random.default_rng(seed).choice(words, (batch, length)).astype(np.int32)


def special_ids(config: ModelConfig) -> list[int]:
    """The ids of the special tokens that the config names, each once."""
    ids = (config.mask_id, config.eos_id, config.pad_id, config.bos_id, config.eot_id)
    return sorted({i for i in ids if i is not None})

"""Which model a plan is of: its config alone, never its weights."""

from pathlib import Path

from lrd_jax.checkpoint import embedded_models, find_model
from lrd_jax.convert import ConversionError
from lrd_jax.convert.reader import read_config
from lrd_jax.convert.store import is_checkpoint, read_info
from lrd_jax.errors import Refused
from lrd_jax.models import CHECKPOINTS, ModelConfig

SHAPES: dict[str, ModelConfig] = {
    "llada-8b": CHECKPOINTS["llada-8b-base"].config,
    "dream-7b": CHECKPOINTS["dream-7b-base"].config,
    **{name: checkpoint.config for name, checkpoint in CHECKPOINTS.items()},
}


def model_config(name: str) -> ModelConfig:
    """The config of an embedded model, of a folder, or of a released checkpoint by name.

    Raises:
      ValueError: there is none of that name, or what is wrong with the folder's.
    """
    if name not in embedded_models() and not Path(name).is_dir():
        if name in SHAPES:
            return SHAPES[name]
        raise Refused(
            f"there is no model {name!r} to plan for; it may be {', '.join([*SHAPES, *embedded_models()])}, or a "
            "folder with a config.json, converted or as on the Hugging Face hub"
        )
    folder = find_model(name)
    if is_checkpoint(folder):
        return read_info(folder).config
    _, config, problems = read_config(folder)
    if config is None:
        raise ConversionError(f"{folder} has no config to plan with:", problems)
    return config

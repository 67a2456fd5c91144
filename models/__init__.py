"""Masked diffusion language models: LLaDA and Dream as one bidirectional transformer."""

from lrd_jax.models.checkpoints import CHECKPOINTS as CHECKPOINTS
from lrd_jax.models.checkpoints import Checkpoint as Checkpoint
from lrd_jax.models.config import LogitAlignment as LogitAlignment
from lrd_jax.models.config import ModelConfig as ModelConfig
from lrd_jax.models.transformer import KeyValues as KeyValues
from lrd_jax.models.transformer import Model as Model
from lrd_jax.models.transformer import Transformer as Transformer
from lrd_jax.models.transformer import positions_of as positions_of

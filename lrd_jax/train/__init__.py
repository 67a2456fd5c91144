"""Training masked diffusion language models, from scratch or from a checkpoint."""

from lrd_jax.train.config import TrainConfig as TrainConfig
from lrd_jax.train.config import read_config as read_config
from lrd_jax.train.trainer import train as train

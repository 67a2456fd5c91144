"""Hugging Face weights to parameters and back: name tables, and one reader and one writer that run any of them."""

from lrd_jax.convert.conversion import convert as convert
from lrd_jax.convert.conversion import export as export
from lrd_jax.convert.reader import Progress as Progress
from lrd_jax.convert.reader import read_hf as read_hf
from lrd_jax.convert.safetensors_io import ConversionError as ConversionError
from lrd_jax.convert.store import CheckpointInfo as CheckpointInfo
from lrd_jax.convert.verification import verify as verify
from lrd_jax.convert.writer import write_hf as write_hf

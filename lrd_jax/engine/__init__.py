"""Many prompts, no idle row: an engine of slots whose requests come and go, see docs/engine.md."""

from lrd_jax.answer import Answer as Answer
from lrd_jax.answer import Update as Update
from lrd_jax.engine.batch_decoder import BatchDecoder as BatchDecoder
from lrd_jax.engine.engine import Engine as Engine
from lrd_jax.engine.engines import Engines as Engines
from lrd_jax.engine.handle import Handle as Handle
from lrd_jax.engine.request import Request as Request
from lrd_jax.engine.scheduler import Counts as Counts

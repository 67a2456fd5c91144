"""The names at the door, each once: `lrd_jax/__init__.py` reads this file, and so do type checkers."""

from . import checkpoint as checkpoint
from . import convert as convert
from . import models as models
from . import presets as presets
from . import sharding as sharding
from . import tasks as tasks
from . import text as text
from .answer import Answer as Answer
from .answer import Update as Update
from .checkpoint import Loaded as Loaded
from .checkpoint import load as load
from .decoding.config import DecodeConfig as DecodeConfig
from .decoding.loop import make_decode as make_decode
from .decoding.parts.cache.region import DualCache as DualCache
from .decoding.parts.cache.region import PrefixCache as PrefixCache
from .decoding.parts.commit.basic import LowestEntropy as LowestEntropy
from .decoding.parts.commit.basic import Threshold as Threshold
from .decoding.parts.commit.parallel import KLASS as KLASS
from .decoding.parts.commit.parallel import EntropyBound as EntropyBound
from .decoding.parts.commit.parallel import Factor as Factor
from .decoding.parts.commit.parallel import Margin as Margin
from .decoding.parts.commit.reference import Dream as Dream
from .decoding.parts.commit.reference import DreamThreshold as DreamThreshold
from .decoding.parts.commit.reference import FirstThen as FirstThen
from .decoding.parts.commit.reference import Scheduled as Scheduled
from .decoding.parts.commit.rule import CommitRule as CommitRule
from .decoding.parts.divergence import Divergence as Divergence
from .decoding.parts.draw import Draw as Draw
from .decoding.parts.mix import Mix as Mix
from .decoding.parts.refine import Refine as Refine
from .decoding.parts.stop import Stop as Stop
from .decoding.setting import setting as setting
from .decoding.setting import static as static
from .decoding.sight import Change as Change
from .decoding.sight import Sight as Sight
from .decoding.state import DecodeResult as DecodeResult
from .decoding.state import DecodeState as DecodeState
from .decoding.state import StopReason as StopReason
from .generate import Generator as Generator
from .sharding import make_mesh as make_mesh
from .sharding import shard_batch as shard_batch
from .text import decode_text as decode_text
from .text import encode_prompts as encode_prompts

__version__: str

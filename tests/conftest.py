"""Eight simulated CPU devices for every test, and the tiny checkpoints, each read once."""

import functools
import os

import jaxlib.version

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy: the twin's products are too small to share out
# Tests compile far longer than they compute; this takes five sixths of it.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_backend_optimization_level=0"
    # 0.12 has no other emitters, and ends at a flag that it does not know.
    + (" --xla_cpu_use_fusion_emitters=false" if jaxlib.version.__version_info__ < (0, 11) else "")
)

import goldens
import jax
import jax.numpy as jnp
import pytest
from hypothesis import HealthCheck, settings

from lrd_jax.convert.reader import read_hf
from lrd_jax.models import Model

# The same examples every time; `--hypothesis-profile other-examples` looks for what they miss.
_UNTIMED = settings(database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("other-examples", _UNTIMED)
settings.register_profile("same-examples", _UNTIMED, derandomize=True)
settings.load_profile("same-examples")

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_compilation_cache", False)  # the command line's own would write to the user's folder


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """Every program maps memory, and a process may hold 65,530 maps on Linux: the whole suite's would not fit."""
    yield
    jax.clear_caches()


@functools.cache
def _checkpoint(name, dtype=None):
    config, params = read_hf(goldens.GOLDEN / name, dtype=dtype)
    return Model(config), jax.tree.map(jnp.asarray, params)


@pytest.fixture(scope="session")
def checkpoint():
    """`checkpoint(name, dtype=None)` -> (model, params) of a tiny checkpoint, cast to a dtype if one is named."""
    return _checkpoint


@pytest.fixture
def strict_dtypes():
    """Arrays of different dtypes do not mix unasked. Not for bfloat16: jax's own fused attention mixes there."""
    with jax.numpy_dtype_promotion("strict"):
        yield

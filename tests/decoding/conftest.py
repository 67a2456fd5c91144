"""Goldens, twins and caches are tested with the compiler that users run: its default level, our options.

The rest of the suite compiles quickly (`tests/conftest.py`), which a program's own options overrule.
"""

import os

import pytest

from lrd_jax.decoding import compiling, loop

DEFAULTS = {"xla_backend_optimization_level": 3}
if "--xla_cpu_use_fusion_emitters=false" in os.environ["XLA_FLAGS"]:
    DEFAULTS["xla_cpu_use_fusion_emitters"] = True


@pytest.fixture(scope="module")
def users_compiler():
    """For modules that decode: `pytestmark = pytest.mark.usefixtures("users_compiler")`."""
    own = compiling.compiler_options
    programs = [loop.run_start, loop.run_advance, loop.run_decode, loop.run_watched]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiling, "compiler_options", lambda *kind: {**own(*kind), **(DEFAULTS if kind[0] else {})})
        for program in programs:
            program.forget()
        yield
    for program in programs:
        program.forget()

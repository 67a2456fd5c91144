"""Compiler options by platform."""

import jax
import jax.numpy as jnp
import pytest

from lrd_jax.decoding import compiling


@pytest.fixture
def fresh():
    compiling.compiler_options.cache_clear()
    yield
    compiling.compiler_options.cache_clear()


def test_options_that_the_compiler_does_not_know_are_left_out(monkeypatch, fresh):
    monkeypatch.setattr(compiling, "_CPU", {"xla_cpu_no_such_option": "1"})
    assert compiling.compiler_options("cpu") == {}


def test_this_compiler_knows_the_options_of_a_cpu(fresh):
    assert compiling.compiler_options("cpu")
    assert compiling.compiler_options("tpu") == {}


def test_inside_another_jit_no_options_are_set():
    scaled = compiling.PlatformJit(lambda factor, x: factor * x)
    assert float(scaled(2, jnp.float32(3.0))) == float(jax.jit(lambda x: scaled(2, x))(jnp.float32(3.0))) == 6.0
    assert scaled.cache_size() >= 1

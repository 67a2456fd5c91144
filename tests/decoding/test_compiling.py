"""Compiler options by platform."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from lrd_jax import DecodeConfig, make_decode
from lrd_jax.decoding import compiling
from lrd_jax.models import CHECKPOINTS, Model


@pytest.fixture
def fresh():
    compiling.compiler_options.cache_clear()
    yield
    compiling.compiler_options.cache_clear()


def test_options_that_the_compiler_does_not_know_are_left_out(monkeypatch, fresh):
    monkeypatch.setattr(compiling, "CPU", {"xla_cpu_no_such_option": "1"})
    assert compiling.compiler_options("cpu") == {}


def test_this_compiler_knows_the_options_of_a_cpu(fresh):
    assert compiling.compiler_options("cpu")
    assert compiling.compiler_options("tpu") == {}


def test_inside_another_jit_no_options_are_set():
    scaled = compiling.PlatformJit(lambda factor, x: factor * x)
    assert float(scaled(2, jnp.float32(3.0))) == float(jax.jit(lambda x: scaled(2, x))(jnp.float32(3.0))) == 6.0
    assert scaled.cache_size() >= 1


@pytest.mark.parametrize(
    ("kind", "whole"), [(("gpu", False), True), (("tpu", False), True), (("gpu", True), False), (("cpu", False), False)]
)
def test_float32_products_are_whole_where_an_accelerator_would_round_them(monkeypatch, kind, whole):
    monkeypatch.setattr(compiling, "_kind", lambda args: kind)
    product = compiling.PlatformJit(lambda static, x: x @ x).lower(None, jnp.ones((2, 2)))
    assert ("HIGHEST" in product.as_text()) == whole


@pytest.mark.parametrize("quantized", [None, "int8"])
def test_narrow_weights_are_not_copied_in_float32_before_the_loop(fresh, quantized):
    """A CPU multiplies them in float32; converted once, they would take two or four times their size all the while."""
    sizes = {"num_layers": 8, "embed_dim": 256, "num_heads": 2, "num_kv_heads": 2, "mlp_dim": 1024, "vocab_size": 500}
    special = {"mask_id": 0, "eos_id": 1, "pad_id": 1, "bos_id": None, "eot_id": None}
    model = Model(dataclasses.replace(CHECKPOINTS["llada-8b-base"].config, **sizes, **special, quantized=quantized))
    params = model.abstract_params(jnp.bfloat16)
    memory = make_decode(model, DecodeConfig(4)).lower(params, 1, 4).compile().memory_analysis()
    assert memory.temp_size_in_bytes < sum(leaf.size for leaf in jax.tree.leaves(params["blocks"]))

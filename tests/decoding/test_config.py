"""Configs: validated when built, numbers as leaves, everything else as structure."""

import jax
import pytest

from lrd_jax import (
    DecodeConfig,
    Divergence,
    Draw,
    Dream,
    DualCache,
    LowestEntropy,
    Mix,
    PrefixCache,
    Refine,
    Scheduled,
    Stop,
    Threshold,
)

REFUSED = {
    "gen_length": (lambda: DecodeConfig(0), r"DecodeConfig.gen_length=0"),
    "blocks": (lambda: DecodeConfig(10, block_length=4), "gen_length=10 must be a multiple of block_length=4"),
    "r_f": (lambda: Mix(1.5), r"Mix.r_f=1.5 must be in \[0, 1\]"),
    "top_p": (lambda: Mix(top_p=-0.1), r"Mix.top_p=-0.1 must be in \[0, 1\]"),
    "nan": (lambda: Mix(float("nan")), "Mix.r_f=nan"),
    "infinity": (lambda: Draw(float("inf")), "Draw.temperature=inf"),
    "tau": (lambda: Stop(-1.0), "Stop.tau=-1.0"),
    "guard": (lambda: Stop(0.1, min_confidence=2.0), "Stop.min_confidence=2.0"),
    "max_steps": (lambda: Refine(0.1, 0), "Refine.max_steps=0 must be an integer of at least 1"),
    "before": (lambda: Refine(before="never"), "Refine.before='never' must be one of block, commit"),
    "reduce": (lambda: Divergence("median"), "Divergence.reduce='median'"),
    "per_step": (lambda: LowestEntropy(1.5), "LowestEntropy.per_step=1.5"),
    "threshold": (lambda: Threshold(-0.5), "Threshold.threshold=-0.5"),
    "steps": (lambda: DecodeConfig(8, block_length=2, commit=Scheduled(6)), "steps=6 must be a multiple of the 4"),
    "alg": (lambda: Dream("best"), "Dream.alg='best'"),
    "order": (lambda: Scheduled(order="worst"), "Scheduled.order='worst'"),
    "temperature": (lambda: Draw(-1.0), "Draw.temperature=-1.0"),
    "a number for a part": (lambda: DecodeConfig(8, mix=0.2), "DecodeConfig.mix=0.2 must be a MixRule or None"),
    "a name for a cache": (lambda: DecodeConfig(8, cache="dual"), "DecodeConfig.cache='dual' must be a Cache or None"),
    "refresh_every": (lambda: PrefixCache(0), "PrefixCache.refresh_every=0 must be an integer of at least 1"),
    "a cache and guidance": (
        lambda: DecodeConfig(8, cache=DualCache(), cfg_scale=1.0),
        r"cache=DualCache\(refresh_every=None\) and cfg_scale=1.0 exclude each other",
    ),
    "no commit rule": (lambda: DecodeConfig(8, commit=None), "DecodeConfig.commit=None must be a CommitRule"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_values_are_named(case):
    build, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        build()


def test_numbers_are_leaves_and_rules_are_structure():
    one = DecodeConfig.lrd(32, mix=Mix(0.1, 0.5), draw=Draw(0.0))
    assert jax.tree.structure(one) == jax.tree.structure(DecodeConfig.lrd(32, mix=Mix(0.7, 0.9), draw=Draw(1.0)))
    assert jax.tree.structure(one) != jax.tree.structure(DecodeConfig.lrd(32, mix=None))
    assert jax.tree.structure(one) != jax.tree.structure(DecodeConfig.lrd(64))
    assert jax.tree.structure(one) != jax.tree.structure(DecodeConfig.lrd(32, commit=LowestEntropy(2)))


def test_configs_are_hashable_and_equal_by_value():
    assert {DecodeConfig.paper(32): 1}[DecodeConfig.paper(32)] == 1


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (DecodeConfig(8), 8),
        (DecodeConfig(8, refine=Refine(max_steps=5)), 12),
        (DecodeConfig(8, block_length=4, refine=Refine(max_steps=5)), 16),
        (DecodeConfig(8, refine=Refine.times(2)), 24),
        (DecodeConfig(8, commit=Scheduled(16)), 16),
        (DecodeConfig(8, max_forwards=3), 3),
    ],
)
def test_step_limit(config, limit):
    assert config.step_limit == limit

"""KLASS against the runs of its own code: canvases after every call, and how many positions were ready."""

from typing import Any

import field
import goldens
import jax.numpy as jnp
import numpy as np
import pytest
from quick import some_quick

from lrd_jax import KLASS, Change, CommitRule, DecodeConfig, make_decode, setting
from lrd_jax.decoding.setting import number, part

pytestmark = pytest.mark.usefixtures("users_compiler")
RUNS = goldens.field_runs("klass")


@setting
class OneOrOther(CommitRule):
    """Rows of two rules in one batch, so that runs of many structures share a compile."""

    one: CommitRule = part(CommitRule)
    other: CommitRule = part(CommitRule)
    rows: Any = number(default=0.0)  # [B], 1 in rows of the other

    reads = frozenset({"kl", "carried"})

    def start(self, rows, window):
        return self.one.start(rows, window), self.other.start(rows, window)

    def observe(self, sight, state):
        return self.one.observe(sight, state[0]), self.other.observe(sight, state[1])

    def __call__(self, sight, state):
        (a, one), (b, other) = self.one(sight, state[0]), self.other(sight, state[1])
        return Change(jnp.where(self.rows[:, None] == 1, b.commit, a.commit)), (one, other)

    def stable(self, sight, state):
        a, b = self.one.stable(sight, state[0]), self.other.stable(sight, state[1])
        return jnp.where(self.rows[:, None] == 1, b, a)


def structure(key):
    """What rows of one rule have in common. LLaDA's plan of one token a step is the default; Dream has none."""
    p, dream = RUNS[key]["params"], RUNS[key]["checkpoint"] == "tiny-dream"
    plan = None if dream or p["steps"] == p["gen"] else p["steps"]
    return {"patience": p["history"], "steps": plan, "strategy": p["strategy"], "at_least": dream}


def rule_of(keys):
    """One rule for all runs, of rules that apply to some rows each."""
    kl, confidence = (field.numbers("klass", keys, name) for name in ("kl_threshold", "conf_threshold"))
    structures = [structure(key) for key in keys]
    rule = None
    for s in {tuple(s.items()): s for s in structures}.values():
        mine = KLASS(kl, confidence, **s)
        rule = mine if rule is None else OneOrOther(rule, mine, np.array([x == s for x in structures], np.float32))
    return rule


def masks_left_from(key):
    """Calls of a run until it leaves a block with masks in it, which nothing of ours does; all, if it never does."""
    p, n = RUNS[key]["params"], len(field.recorded(key))
    if RUNS[key]["checkpoint"] == "tiny-dream":
        return n
    masked = (field.recorded(key) == p["mask_id"]).reshape(n, -1, p["block"]).any(axis=-1)  # [n, blocks]
    calls, planned = 0, p["steps"] // masked.shape[1]
    for block in range(masked.shape[1]):
        calls = min(calls + planned, n) if masked[-1, block] else int(np.argmin(masked[:, block])) + 1
        if masked[-1, block]:
            break
    return calls


def look(forward):
    """The canvas after a forward, and the stable and confident positions on it, before the strategy chooses."""
    rule, state = forward.config.commit, forward.before.parts["commit"]
    ready = jnp.sum(rule.stable(forward.sight, rule.observe(forward.sight, state)), axis=-1)
    return {"canvas": forward.after.tokens, "ready": ready}


BATCHES = field.batches("klass", lambda key: None if "dream" in key else RUNS[key]["params"]["block"])


@pytest.mark.parametrize("first", some_quick(BATCHES, 1))
def test_klass(checkpoint, first):
    keys, p = BATCHES[first], RUNS[first]["params"]
    name = RUNS[first]["checkpoint"]
    model, params = checkpoint(name)
    config = DecodeConfig(
        max(RUNS[key]["params"]["gen"] for key in keys),
        block_length=None if name == "tiny-dream" else p["block"],
        commit=rule_of(keys),
        suppress_mask=False,
    )
    _, seen = field.watched(make_decode(model, config), look, params, keys, model.config.pad_id)
    for key, got in zip(keys, seen, strict=True):
        field.assert_same(key, got, "ready", calls=masks_left_from(key))

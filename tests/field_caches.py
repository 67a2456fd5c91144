"""Runs of the field's caches as rows of one batch, whatever their prompts, canvases, schedules and refreshes are."""

import dataclasses
import functools

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import twin
from padding import padded
from twin_model import TwinModel

from lrd_jax import CommitRule, StopReason, make_decode
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.forward import embed
from lrd_jax.decoding.parts.commit.rule import best
from lrd_jax.decoding.parts.commit.schedule import dream_fractions, llada_count
from lrd_jax.decoding.setting import array, flag, setting
from lrd_jax.decoding.sight import Change
from lrd_jax.models import LogitAlignment

ATOL = 3e-4  # of logits, as the data's README says


ORDERS = ("maskgit_plus", "topk_margin", "entropy")


@setting
class RecordedCounts(CommitRule):
    """The schedule of every row as data, and its order among the official ones."""

    counts: jax.Array = array()  # [B, commits of a block]
    order: jax.Array = array()  # [B] index into ORDERS
    whole: bool = flag(default=False)  # whether all of the canvas is read

    @property
    def reads(self):
        return frozenset({"margin", "canvas"} if self.whole else {"margin"})

    def __call__(self, sight, state):
        belief = sight.proposal
        scores = jnp.stack([belief.confidence, belief.margin, -belief.entropy])
        rows, last = jnp.arange(len(self.counts)), self.counts.shape[1] - 1
        count = self.counts[rows, jnp.minimum(sight.commits, last)]
        return Change(best(scores[self.order, rows], sight.masked, count)), state

    def max_commits(self, gen_length, block_length):
        return self.counts.shape[1] * (gen_length // block_length)


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a recorded run."""

    key: str
    index: int  # of the row in its run

    @property
    def run(self):
        return goldens.field_runs(self.key.split(".")[1])[self.key]

    @property
    def params(self):
        return self.run["params"]

    def array(self, name):
        return goldens.field_array(self.key, name)

    @property
    def prompt(self):
        return self.array("prompt")[self.index]

    @property
    def canvases(self):
        """After every call `[n, G]`."""
        return self.array("canvases")[1:, self.index, len(self.prompt) :]


def rows_of(decoder, checkpoint):
    """Every recorded row of a decoder on a checkpoint."""
    runs = goldens.field_runs(decoder).items()
    return [Row(key, i) for key, run in runs if run["checkpoint"] == checkpoint for i in range(run["params"]["batch"])]


def grouped(rows, *names):
    """Rows by what they have in common: the checkpoint and some of their parameters."""
    groups = {}
    for row in rows:
        groups.setdefault((row.run["checkpoint"], *(row.params.get(name) for name in names)), []).append(row)
    return groups


def batch_of(rows):
    """Their prompts, left-padded, and their lengths: what a decode takes."""
    return padded([row.prompt for row in rows]), {"length": np.array([row.params["gen"] for row in rows])}


def scheduled(rows, W, whole=False):
    """LLaDA's schedules of rows in blocks of W."""
    counts = np.ones((len(rows), W + 1), int)
    for row, mine in zip(rows, counts, strict=True):
        steps = row.params["steps"] * W // row.params["gen"]
        mine[:steps] = llada_count(W, steps, np.arange(steps))
    return RecordedCounts(counts, np.zeros(len(rows), int), whole)


def dream_scheduled(rows, W=None, whole=False):
    """Dream's schedules of rows that are one block; or in blocks of W, whose first forward commits one position."""
    counts = np.ones((len(rows), max(row.params["steps"] for row in rows) + 1), int)
    for row, mine in zip(rows, counts, strict=True):
        left, steps = row.params["gen"], row.params["steps"]
        if W is not None:
            left, steps = W - 1, steps * W // left
        for i, fraction in enumerate(dream_fractions(steps)):
            if W is not None and i == 0:
                continue
            mine[i] = int(np.float32(left) * fraction)
            left -= mine[i]
    return RecordedCounts(counts, np.array([ORDERS.index(row.params["alg"]) for row in rows]), whole)


def canvas_of(rows, W):
    """The shortest canvas in blocks of W that holds all rows'."""
    return -(-max(row.params["gen"] for row in rows) // W) * W


class Watched:
    """A decode of recorded rows, watched forward by forward, against what was recorded of them.

    Args:
      look: of a forward, see `Decoder.watch`: a table of arrays; "tokens" is added.
    """

    def __init__(self, checkpoint, rows, config, look):
        self.rows = rows
        self.model, self.params = checkpoint(rows[0].run["checkpoint"])
        (ids, mask), lengths = batch_of(rows)
        self.P = ids.shape[1]
        decode = make_decode(self.model, config)
        self.result, seen = decode.watch(functools.partial(_look, look), self.params, ids, mask, **lengths)
        self.seen = jax.tree.map(np.asarray, seen)

    def places(self, row):
        """Where the recorded positions of a row lie in the batch's sequences."""
        begin = self.P - len(row.prompt)
        return slice(begin, begin + len(row.prompt) + row.params["gen"])

    def check_canvases(self):
        """After every forward the canvas is the recorded one, and no forward is missing."""
        for row, tokens, forwards in zip(self.rows, self.seen["tokens"], self.result.forwards.tolist(), strict=True):
            assert forwards == row.run["n_model_calls"], row
            np.testing.assert_array_equal(tokens[:forwards, : row.params["gen"]], row.canvases, err_msg=str(row))

    def check_positions(self):
        """Every forward fed the recorded positions: "fed" `[B, S, L]`."""
        for row, fed in zip(self.rows, self.seen["fed"], strict=True):
            want = row.array("call_positions")[:, row.index]
            np.testing.assert_array_equal(fed[: len(want), self.places(row)], want, err_msg=str(row))

    def check_logits(self):
        """The logits of recorded calls and positions: "hidden" `[B, S, L, D]`."""
        for row, hidden in zip(self.rows, self.seen["hidden"], strict=True):
            for call, at, want in zip(*(row.array(f"logits{x}") for x in ("_call", "_pos", "")), strict=True):
                at, want = at[row.index], want[row.index]
                states = hidden[call, self.places(row)][at[at >= 0]]
                got = self.model.logits(self.params, jnp.asarray(states))
                np.testing.assert_allclose(got, want[at >= 0], atol=ATOL, rtol=0, err_msg=str(row))

    def check_canvas_logits(self):
        """Likewise, of logits of the canvas: "logits" `[B, S, G, V]`."""
        lead = 1 if self.model.config.alignment is LogitAlignment.SHIFTED else 0
        for row, logits in zip(self.rows, self.seen["logits"], strict=True):
            for call, at, want in zip(*(row.array(f"logits{x}") for x in ("_call", "_pos", "")), strict=True):
                place = at[row.index] - len(row.prompt) + lead
                read = (at[row.index] >= 0) & (place >= 0) & (place < row.params["gen"])
                read[read] = ~np.isnan(logits[call, place[read]]).any(axis=-1)  # where a forward says nothing
                assert read.any()
                got, want = logits[call, place[read]], want[row.index][read]
                np.testing.assert_allclose(got, want, atol=ATOL, rtol=0, err_msg=str(row))


def _look(look, forward):
    return {"tokens": forward.after.tokens, **look(forward)}


def inputs_of(forward):
    """What the cache was asked with in a watched forward."""
    return embed(forward.model, forward.params, forward.config, forward.before)


def check_twin(checkpoint, name, config, twin_settings, seeds=(0, 1), lengths=(9, 1, 5), canvases=None):
    """A decode of left-padded rows with canvases of their own against a bare row of the twin at a time.

    Args:
      twin_settings: a function of nothing: a twin's cache remembers.
      canvases: the rows' own lengths; None: the config's for all.
    """
    model, params = checkpoint(name)
    decode, slow = make_decode(model, config.replace(trace=True)), TwinModel(goldens.GOLDEN / name)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        prompts = [rng.integers(0, 300, n) for n in lengths]
        result = decode(params, *padded(prompts), length=None if canvases is None else np.array(canvases))
        for row, prompt in enumerate(prompts):
            G = config.gen_length if canvases is None else canvases[row]
            want = twin.twin_decode(slow, prompt, gen_length=G, block_length=config.window, **twin_settings())
            np.testing.assert_array_equal(result.tokens[row, :G], want.tokens)
            assert int(result.forwards[row]) == want.forwards
            assert StopReason(int(result.stop_reason[row])).name.lower() == want.stop_reason
            kl = result.trace.divergence[row, : want.forwards]
            np.testing.assert_allclose(kl, want.kl, rtol=1e-3, atol=1e-4)


def check_case(checkpoint, case):
    """`check_twin` of a checkpoint's name, settings of the loop and of the twin, for rows of three lengths."""
    name, settings, twin_settings = case
    check_twin(checkpoint, name, DecodeConfig(12, block_length=4, **settings), twin_settings, canvases=(12, 8, 4))


def check_rows(checkpoint, name, config, lengths=(8, 1, 5, 3), canvases=None):
    """A row alone gives the tokens and forwards that it gives in a batch."""
    model, params = checkpoint(name)
    rng = np.random.default_rng(11)
    ids, mask = padded([rng.integers(0, 300, n) for n in lengths])
    keys = jax.random.split(jax.random.key(5), len(ids))
    decode = make_decode(model, config)
    canvases = np.full(len(ids), config.gen_length) if canvases is None else np.array(canvases)
    together = decode(params, ids, mask, keys, length=canvases)
    for row in range(len(ids)):
        one = slice(row, row + 1)
        alone = decode(params, ids[one], mask[one], keys[one], length=canvases[one])
        np.testing.assert_array_equal(together.tokens[row], alone.tokens[0])
        assert int(together.forwards[row]) == int(alone.forwards[0])
    return together

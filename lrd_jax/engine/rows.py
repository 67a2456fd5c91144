"""Slots of a model on its device: a decode state that never stops, rows that come and go, rounds of forwards.

Two programs: one begins and ends rows, one runs a round. Between them and the host go a plan and a table, both small.
A round computes no more positions of prompt than its rows need: of the lengths that are compiled, the shortest that
holds them. Prompts are padded on the left, so a shorter one is the end of each row.

Axes: B slots, P prompt, Q prompt of a round, G canvas, W active window.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from lrd_jax.answer import Beliefs, Canvas
from lrd_jax.decoding.canvas import put_window, take_window, where_rows
from lrd_jax.decoding.compiling import PlatformJit
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.model import Denoiser
from lrd_jax.decoding.request import Request
from lrd_jax.decoding.sight import Sight
from lrd_jax.decoding.start import init_state
from lrd_jax.decoding.state import DecodeState, StopReason
from lrd_jax.decoding.step import observed_step
from lrd_jax.engine.numbers import numbers_of, with_numbers
from lrd_jax.engine.plan import Layout
from lrd_jax.errors import Refused
from lrd_jax.sharding import constrain_batch, constrain_kept

_FACTS = 6  # columns of a table before the canvas


class Seen(flax.struct.PyTreeNode):
    """What forwards showed beside the state, see `lrd_jax.answer.Beliefs`."""

    logprob: jax.Array  # [B, G] float32
    divergence: jax.Array  # [B] float32
    entropy: jax.Array  # [B] float32


class Slots(flax.struct.PyTreeNode):
    """What a round carries."""

    state: DecodeState
    numbers: jax.Array  # [B, K] float32, each row's own
    seen: Seen


@dataclasses.dataclass(frozen=True)
class SeenRow:
    """A slot after a round.

    Attributes:
      reason: a StopReason.
      steps: forwards, of which guidance counts each as one.
    """

    canvas: Canvas
    reason: int
    steps: int
    refine_steps: int

    @property
    def running(self) -> bool:
        return self.canvas.running


class ModelRows:
    """`lrd_jax.engine.scheduler.Rows` of a model; the `work` of a ticket is what a row begins with.

    Attributes:
      config: of the decoder; its gen_length is the canvas G.
      layout: of the plans.
    """

    def __init__(
        self,
        model: Denoiser,
        params: Any,
        config: DecodeConfig,
        slots: int,
        prompts: Sequence[int],
        meet: Callable[[], None] | None = None,
    ):
        """Compiles.

        Args:
          prompts: lengths Q of prompt that a round may compute, ascending; the last is P.
          meet: called before what was compiled first runs: collectives of CPUs give up on a peer that compiles.
        """
        self.config = config
        self.layout = Layout(slots, prompts[-1], config.gen_length, len(numbers_of(config)))
        self._model, self._params, self._prompts = model, params, tuple(prompts)
        self._held: dict[int, int] = {}  # slot -> tokens of the prompt that is in it
        static, nothing, none = (model, self.layout), self.layout.write({}, []), np.int32(0)
        empty = (static, params, numbers_of(config), config)
        if meet is not None:
            run_empty.lower(*empty).compile()
            meet()
        self._slots = _on_device_of(params, run_empty(*empty))
        kept, cache = self._slots.state.cache, config.asking
        shortens = cache.keeps_positions and cache.row_axes(kept) is not None
        if len(prompts) > 1 and kept is not None and not shortens:
            raise Refused(
                f"prompt_length={', '.join(map(str, prompts))}: this decoder's cache keeps a {type(kept).__name__}, "
                "which cannot be shortened to the prompts of a round: give one length"
            )
        if meet is not None:
            run_insert.lower(static, params, self._slots, nothing, config).compile()
            for length in prompts:
                run_round.lower((model, length), params, self._slots, none, none, config).compile()
            meet()
        self.place(nothing)
        for length in prompts:
            jax.block_until_ready(self.advance(0, 0, length))

    def begin(self, placed: Mapping[int, Any], ended: Sequence[int], n: int, keep: int) -> jax.Array:
        """See `Rows`."""
        plan = self.plan(placed, ended)
        if plan is not None:
            self.place(plan)
        return self.advance(n, keep, self.needed)

    @property
    def needed(self) -> int:
        """Q of the next round."""
        longest = max(self._held.values(), default=0)
        return next(length for length in self._prompts if longest <= length)

    def plan(self, placed: Mapping[int, Any], ended: Sequence[int]) -> np.ndarray | None:
        """The plan of tickets that begin and slots that are to rest; None where there are none."""
        for slot in ended:
            self._held.pop(slot, None)
        self._held |= {slot: len(ticket.work.prompt) for slot, ticket in placed.items()}
        if not (placed or ended):
            return None
        return self.layout.write({slot: ticket.work for slot, ticket in placed.items()}, list(ended))

    def place(self, plan: np.ndarray) -> None:
        """Begins and ends rows as a plan says."""
        self._slots = run_insert((self._model, self.layout), self._params, self._slots, plan, self.config)

    def advance(self, n: int, keep: int, length: int) -> jax.Array:
        """Starts a round with prompts of length Q; its table."""
        counts = np.int32(n), np.int32(keep)
        self._slots, table = run_round((self._model, length), self._params, self._slots, *counts, self.config)
        if table.is_fully_addressable:
            table.copy_to_host_async()
        return table

    def collect(self, round_: jax.Array) -> tuple[int, list[SeenRow]]:
        """See `Rows`."""
        here = round_ if round_.is_fully_addressable else round_.addressable_data(0)
        ran, rows = read_table(np.asarray(here), self.config, self._model.config.mask_id)
        self._held = {slot: length for slot, length in self._held.items() if rows[slot].running}
        return ran, rows


@PlatformJit
def run_empty(static: tuple[Denoiser, Layout], params, numbers: jax.Array, config: DecodeConfig) -> Slots:
    """Slots that all rest, with a config's own numbers `[K]`."""
    model, layout = static
    B, P, G = layout.slots, layout.prompt, layout.canvas
    numbers = jnp.broadcast_to(numbers, (B, layout.numbers))
    request = Request(
        prompt=jnp.zeros((B, P), jnp.int32),
        prompt_mask=jnp.broadcast_to(jnp.arange(P) == P - 1, (B, P)),
        keys=_keys(jnp.zeros(B, jnp.uint32)),
        length=jnp.full(B, G, jnp.int32),
        canvas=None,
    )
    state = init_state(model, params, with_numbers(config, numbers), request)
    state = state.replace(reason=jnp.array([StopReason.FINISHED] * B, jnp.int32))  # of no weak type, as rounds give it
    return _laid_out(config, Slots(state=state, numbers=numbers, seen=_nothing_seen(B, G)))


@functools.partial(PlatformJit, consumed=2)
def run_insert(static: tuple[Denoiser, Layout], params, slots: Slots, plan: jax.Array, config: DecodeConfig) -> Slots:
    """The slots with the rows of a plan begun and ended: a merge of any set of them. Consumes the slots."""
    model, layout = static
    new, state = layout.read(plan), slots.state
    request = Request(
        prompt=new.prompt, prompt_mask=new.prompt_mask, keys=_keys(new.seeds), length=new.length, canvas=new.canvas
    )
    numbers = jnp.where(new.begins[:, None], new.numbers, slots.numbers)
    fresh = init_state(model, params, with_numbers(config, numbers), request)
    cache = config.asking.renewed(new.begins, fresh.cache, state.cache)
    rests = state.replace(cache=None, reason=jnp.where(new.rests, StopReason.FINISHED, state.reason))
    state = where_rows(new.begins, fresh.replace(cache=None), rests)
    seen = where_rows(new.begins, _nothing_seen(*state.tokens.shape), slots.seen)
    return _laid_out(config, Slots(state=state.replace(cache=cache), numbers=numbers, seen=seen))


@functools.partial(PlatformJit, consumed=2)
def run_round(
    static: tuple[Denoiser, int], params, slots: Slots, n: jax.Array, keep: jax.Array, config: DecodeConfig
) -> tuple[Slots, jax.Array]:
    """At most `n` forwards; fewer once no more than `keep` rows run. Consumes the slots; gives their table too.

    Args:
      static: the model, and Q.
    """
    model, length = static
    config = with_numbers(config, slots.numbers)

    def goes_on(carry):
        state, _, left = carry
        return (jnp.sum(state.running) > keep) & (left > 0)

    def body(carry):
        state, seen, left = carry
        after, sight = observed_step(model, params, config, state)
        return after, _seen_of(state, after, sight, seen), left - 1

    carry = (_shortened(config, slots.state, length), slots.seen, n)
    state, seen, left = jax.lax.while_loop(goes_on, body, carry)
    slots = _laid_out(config, slots.replace(state=_restored(config, state, slots.state), seen=seen))
    return slots, _table(state, seen, n - left)


def _shortened(config: DecodeConfig, state: DecodeState, length: int) -> DecodeState:
    """The state with prompts `[B, Q]`."""
    cut = state.prompt.shape[1] - length
    if not cut:
        return state
    cache = jax.tree.map(
        lambda kept, rows: jax.lax.slice_in_dim(kept, cut, None, axis=rows + 1),
        state.cache,
        config.asking.row_axes(state.cache),
    )
    return state.replace(prompt=state.prompt[:, cut:], prompt_mask=state.prompt_mask[:, cut:], cache=cache)


def _restored(config: DecodeConfig, state: DecodeState, whole: DecodeState) -> DecodeState:
    """The state with the prompts of another `[B, P]`.

    What a row had cached there is padding to it. It becomes 0: of who was in the slot before it may be left a NaN.
    """
    cut = whole.prompt.shape[1] - state.prompt.shape[1]
    if not cut:
        return state
    cache = jax.tree.map(
        lambda kept, rows: jnp.pad(kept, [(cut if axis == rows + 1 else 0, 0) for axis in range(kept.ndim)]),
        state.cache,
        config.asking.row_axes(state.cache),
    )
    return state.replace(prompt=whole.prompt, prompt_mask=whole.prompt_mask, cache=cache)


def _nothing_seen(rows: int, canvas: int) -> Seen:
    unknown = jnp.full(rows, jnp.inf, jnp.float32)  # of no weak type, as what rounds give: each compiles once
    return Seen(logprob=jnp.zeros((rows, canvas)), divergence=unknown, entropy=jnp.zeros(rows))


def _seen_of(before: DecodeState, after: DecodeState, sight: Sight, seen: Seen) -> Seen:
    """What a step adds: of rows that took part."""
    entropy = jnp.sum(jnp.where(sight.masked, sight.belief.entropy, 0.0), -1) / jnp.maximum(sight.masked.sum(-1), 1)
    now = Seen(logprob=_logprob(after, sight, seen.logprob), divergence=sight.divergence, entropy=entropy)
    return where_rows(after.forwards > before.forwards, now, seen)


def _logprob(after: DecodeState, sight: Sight, logprob: jax.Array) -> jax.Array:
    """`Seen.logprob` with what a step committed, and where it has moved to."""
    if sight.canvas is None:
        W = sight.masked.shape[1]
        chosen = sight.masked & ~take_window(after.masked, sight.start, W)
        of_window = jnp.where(chosen, jnp.log(sight.proposal.confidence), take_window(logprob, sight.start, W))
        return put_window(logprob, of_window, sight.start)
    # Of every position as if it were committed now: what still is masked is set right when it is.
    logprob = jnp.where(sight.canvas.masked, jnp.log(sight.canvas.proposal.confidence), logprob)
    if sight.moved is not None:
        logprob = jnp.take_along_axis(logprob, jnp.maximum(sight.moved, 0), axis=1)
        logprob = jnp.where(sight.moved >= 0, logprob, 0.0)
    return jnp.where(after.masked, 0.0, logprob)


def _table(state: DecodeState, seen: Seen, ran: jax.Array) -> jax.Array:
    """int32 `[B, 6 + G + W + W + G + 2]`: what is read of a round. The forwards that it took, a row's facts, tokens,
    guesses; and as the bits of float32 how sure these are, and what was seen."""
    facts = (
        jnp.broadcast_to(ran, state.reason.shape),
        state.reason,
        state.forwards,
        state.refine_forwards,
        state.committing,
        jnp.where(state.block_forwards > 0, state.block, -1),  # before its first forward a block has no beliefs
    )
    tokens = jnp.where(state.masked, -1, state.tokens)
    columns = jnp.stack([fact.astype(jnp.int32) for fact in facts], axis=1)
    sure = (state.belief.confidence, seen.logprob, seen.divergence[:, None], seen.entropy[:, None])
    bits = jax.lax.bitcast_convert_type(jnp.concatenate(sure, axis=1).astype(jnp.float32), jnp.int32)
    return _whole(jnp.concatenate([columns, tokens, state.belief.token.astype(jnp.int32), bits], axis=1))


def read_table(table: np.ndarray, config: DecodeConfig, mask_id: int) -> tuple[int, list[SeenRow]]:
    """The forwards of a round, and its rows."""
    G, W = config.gen_length, config.window
    rows, numbers = [], np.ascontiguousarray(table[:, _FACTS + G + W :]).view(np.float32)
    for _, reason, steps, refine_steps, committing, block, *_ in (row[:_FACTS].tolist() for row in table):
        tokens = table[len(rows), _FACTS : _FACTS + G]
        guesses, confidence, sure = np.full(G, -1), np.zeros(G, np.float32), numbers[len(rows)]
        if block >= 0:
            guesses[block * W : block * W + W] = table[len(rows), _FACTS + G : _FACTS + G + W]
            confidence[block * W : block * W + W] = sure[:W]
        masked = tokens < 0
        canvas = Canvas(
            tokens=np.where(masked, mask_id, tokens),
            masked=masked,
            guesses=guesses,
            steps=steps,
            refining=not committing,
            running=reason == StopReason.RUNNING,
            beliefs=Beliefs(
                confidence=confidence,
                logprob=sure[W : W + G],
                divergence=float(sure[-2]),
                entropy=float(sure[-1]),
            ),
        )
        rows.append(SeenRow(canvas, reason, steps, refine_steps))
    return int(table[0, 0]), rows


def _keys(seeds: jax.Array) -> jax.Array:
    """`[B]` keys: the one that the first row of a decode has of `jax.random.key(seed)`."""
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), 0))(seeds)


def _laid_out(config: DecodeConfig, slots: Slots) -> Slots:
    """On a mesh: rows split over `batch`, the same after every program, so that each compiles once."""
    cache = constrain_kept(slots.state.cache, config.asking.row_axes(slots.state.cache))
    state = jax.tree.map(constrain_batch, slots.state.replace(cache=None))
    numbers, seen = constrain_batch(slots.numbers), jax.tree.map(constrain_batch, slots.seen)
    return Slots(state=state.replace(cache=cache), numbers=numbers, seen=seen)


def _whole(table: jax.Array) -> jax.Array:
    """On a mesh: all of it on every device."""
    if jax.sharding.get_abstract_mesh().empty:
        return table
    return jax.lax.with_sharding_constraint(table, PartitionSpec())


def _on_device_of(params: Any, slots: Slots) -> Slots:
    """On the parameters' one device by name, as all later ones are."""
    devices = jax.tree.leaves(params)[0].devices()
    return slots if len(devices) > 1 else jax.device_put(slots, *devices)

"""One step of a decode: embed the canvas, ask the model, read its beliefs, commit some positions, soften the rest.

Axes: B batch, P prompt, G canvas, W active window, D embed, V vocab. Rows are independent: each has its own phase,
block, counts, length and end, and a row that has ended never changes again.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from lrd_jax.decoding.canvas import put_window, take_window, where_rows
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.forward import embed
from lrd_jax.decoding.model import Denoiser
from lrd_jax.decoding.parts.mix import blend
from lrd_jax.decoding.reading import Reading, read_ahead, read_forward, read_shadows
from lrd_jax.decoding.resize import moves, resized
from lrd_jax.decoding.sight import Change, Sight, View
from lrd_jax.decoding.state import DecodeState, StopReason, Trace


def should_continue(state: DecodeState) -> jax.Array:
    """True while any row is running."""
    return jnp.any(state.running)


def step(model: Denoiser, params: Any, config: DecodeConfig, state: DecodeState) -> DecodeState:
    """One forward, and what follows from it, of every row that takes part: all, unless some wait for a refresh."""
    return observed_step(model, params, config, state)[0]


def observed_step(model: Denoiser, params: Any, config: DecodeConfig, state: DecodeState) -> tuple[DecodeState, Sight]:
    """`step`, and what it saw; of a row that ended or waits, meaningless. Numbers are those of docs/semantics.md."""
    with jax.named_scope("forward"):
        inputs = embed(model, params, config, state)  # 1
        hidden, cache = config.asking.forward(model, params, inputs, state.cache)  # 2
    sight, reading, previous = _read(model, params, config, state, hidden)  # 3, 4

    seen = {name: part.observe(sight, state.parts[name]) for name, part in config.remembering().items()}
    fills = config.stopping(sight, seen["stop"])  # 6
    commits = (config.refining(sight) & sight.running) | fills  # 5
    holds = config.sizing.holds(sight, state.growth)
    if holds is not None:
        fills, commits = fills & ~holds, commits & ~holds
    with jax.named_scope("commit"):  # Eq. 7
        change, rule = config.commit(sight, seen["commit"])
        seen["commit"] = where_rows(commits, rule, seen["commit"])

    chosen = jnp.where(fills[:, None], sight.masked, change.commit & commits[:, None])
    after = _change(model, config, state, sight, change, chosen, commits, fills)
    after = after.replace(
        soft=_soften(model, params, config, sight, reading, seen),  # 7
        belief=reading.belief.replace(margin=None, gap=None),
        previous=previous,
        log_z=None if sight.canvas is None or state.log_z is None else sight.canvas.belief.log_z,
        block_forwards=state.block_forwards + state.running,
        commits=state.commits + commits,
        refined=jnp.where(commits, 0, state.refined + state.running),
        committing=config.refining.stays(commits, sight),
        parts=seen,
        forwards=state.forwards + state.running,
        refine_forwards=state.refine_forwards + (state.running & ~state.committing),
    )
    if holds is not None:
        after = where_rows(holds & sight.running, _looked(state, after), after)
    after, moved = _resize(model, params, config, after, sight, chosen)
    after = _end_rows(model, config, _next_block(model, params, config, after, sight))  # 8
    if config.asked > config.reach:
        after = _carried(model, params, config, after, after.block != state.block, hidden)
    waiting = config.asking.waiting(inputs)
    if waiting is not None and len(state.prompt) > 1:
        after = where_rows(waiting, state.replace(cache=None), after.replace(cache=None))
    return after.replace(cache=cache), dataclasses.replace(sight, moved=moved)


def _read(
    model: Denoiser, params: Any, config: DecodeConfig, state: DecodeState, hidden: jax.Array
) -> tuple[Sight, Reading, jax.Array | None]:
    """What every part sees of this forward; the reading of the window; and what to keep of the forward."""
    W, start = config.window, state.block * config.window
    masked = take_window(state.masked, start, W)
    exists = None if state.exists is None else take_window(state.exists, start, W)
    keys = None if state.keys is None else jax.vmap(jax.random.fold_in)(state.keys, state.forwards)
    draw_keys = None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, 1)
    open_ = jnp.ones_like(masked) if config.commit.reopens else masked
    wanted = open_ & state.running[:, None]
    shadow = None
    if "shadow" in config.reads:
        hidden, shadows = hidden[:, :-W], hidden[:, -W:]
        shadow = read_shadows(model, params, config, shadows, take_window(state.tokens, start, W))
    if config.asked > config.reach:
        hidden = take_window(hidden, start, W)
    if config.reads_canvas:
        wanted = put_window(jnp.zeros_like(state.masked), wanted, start)
    log_z = state.log_z if config.reads_canvas else state.belief.log_z
    reading, previous = read_forward(model, params, config, hidden, state.previous, log_z, wanted, draw_keys)
    canvas = None
    if config.reads_canvas:
        canvas = _view(state, reading)
        reading = jax.tree.map(lambda x: take_window(x, start, W), reading)
    finite = jnp.isfinite(reading.belief.entropy)
    divergence, kl = jnp.full(len(start), jnp.inf, jnp.float32), None
    if reading.kl is not None:
        first = state.block_forwards == 0
        kl = jnp.where((state.forwards == 0 if config.carries else first)[:, None], jnp.inf, reading.kl)
        divergence = config.divergence(kl, masked, exists)  # Eq. 6
        if config.carries:
            divergence = jnp.where(first, jnp.inf, divergence)
    js = None
    if reading.js is not None:
        known = state.forwards > 0 if config.carries else state.block_forwards > 0
        js = jnp.where(known[:, None], reading.js, jnp.inf)
    sight = Sight(
        masked=masked,
        exists=exists,
        belief=reading.belief,
        proposal=reading.proposal,
        kl=kl,
        divergence=divergence,
        running=state.running & jnp.all(finite if exists is None else finite | ~exists, axis=-1),
        committing=state.committing,
        forwards=state.forwards,
        block_forwards=state.block_forwards,
        commits=state.commits,
        refined=state.refined,
        start=start,
        length=config.gen_length if state.length is None else state.length,
        keys=keys,
        js=js,
        js_none=reading.js_none,
        mass=reading.mixture.mass[..., 0] if "mass" in config.reads else None,
        shadow=shadow,
        window=W,
        vocab_size=model.config.vocab_size,
        eos_id=model.config.eos_id,
        canvas=canvas,
    )
    if "planned" in config.reads:
        sight = dataclasses.replace(sight, planned=config.commit.plan(sight))
    return sight, reading, previous


def _view(state: DecodeState, reading: Reading) -> View:
    """What every part sees of the whole canvas, from a reading of all of it."""
    first = (state.forwards == 0)[:, None]
    return View(
        masked=state.masked,
        exists=state.exists,
        belief=reading.belief,
        proposal=reading.proposal,
        kl=None if reading.kl is None else jnp.where(first, jnp.inf, reading.kl),
    )


def _carried(
    model: Denoiser, params: Any, config: DecodeConfig, state: DecodeState, moved: jax.Array, hidden: jax.Array
) -> DecodeState:
    """The state of rows that `moved` `[B]` to another block, which know what this forward said there."""
    assert state.previous is not None, "nothing is compared"
    ahead = take_window(hidden, state.block * config.window, config.window)
    previous, log_z = read_ahead(model, params, config, ahead, moved, state.previous, state.belief.log_z)
    return state.replace(previous=previous, belief=state.belief.replace(log_z=log_z))


def _change(
    model: Denoiser,
    config: DecodeConfig,
    state: DecodeState,
    sight: Sight,
    change: Change,
    chosen: jax.Array,
    commits: jax.Array,
    fills: jax.Array,
) -> DecodeState:
    """The state with the rule's change where a row commits, and what is masked committed where the stop fills: of the
    block, or of the canvas."""
    W, start = config.window, sight.start
    left = sight.masked & ~chosen
    tokens = jnp.where(chosen, sight.proposal.token, take_window(state.tokens, start, W))
    if change.reopen is not None:
        reopened = change.reopen & (commits & ~fills)[:, None]
        left |= reopened
        tokens = jnp.where(reopened, model.config.mask_id, tokens)
    tokens, masked = put_window(state.tokens, tokens, start), put_window(state.masked, left, start)
    rest = None
    if config.stopping.fills_canvas and sight.canvas is not None:
        rest = masked & fills[:, None]
        tokens, masked = jnp.where(rest, sight.canvas.proposal.token, tokens), masked & ~rest
    return state.replace(
        tokens=tokens,
        masked=masked,
        settled=state.settled | fills,
        reason=jnp.where(state.running & ~sight.running, StopReason.NON_FINITE, state.reason),
        trace=_record(config, state, sight, chosen, rest),
    )


def _looked(state: DecodeState, after: DecodeState) -> DecodeState:
    """The state before a forward with what one that decides nothing leaves behind."""
    kept = ("cache", "belief", "previous", "log_z", "forwards", "trace")
    return state.replace(**{name: getattr(after, name) for name in kept})


def _resize(
    model: Denoiser, params: Any, config: DecodeConfig, state: DecodeState, sight: Sight, chosen: jax.Array
) -> tuple[DecodeState, jax.Array | None]:
    """The state with the canvas that the length part wants, and where its contents come from.

    Where they come from other places, nothing is left of what was known of each place: beliefs, parts and commits are
    as at the start of a block. The phase stays.
    """
    resize, growth = config.sizing(sight, state.growth, chosen)
    if resize is None:
        return state, None
    stirred = moves(state, resize)
    log_z = None if state.log_z is None else jnp.where(stirred[:, None], jnp.inf, state.log_z)  # no KL to other places
    state = resized(model.config, state, resize).replace(growth=growth, log_z=log_z)
    return _afresh(model, params, config, state, stirred), resize.source


def _soften(
    model: Denoiser, params: Any, config: DecodeConfig, sight: Sight, reading: Reading, states: dict[str, Any]
) -> jax.Array | None:
    """What every position of the window feeds back while it is masked, `[B, W, D]`; None: plain [MASK]."""
    if config.mix is None:
        return None
    with jax.named_scope("mixing"):  # Eq. 4
        alpha = config.mix(sight, states["mix"])
        return blend(reading.mixture.mean, alpha, model.table(params), model.config.mask_id)


def _record(
    config: DecodeConfig, state: DecodeState, sight: Sight, chosen: jax.Array, rest: jax.Array | None
) -> Trace | None:
    """The trace with this step's entries: what became tokens is `chosen` `[B, W]` and, if any, `rest` `[B, G]`."""
    trace = state.trace
    if trace is None:
        return None
    masked = sight.masked
    committed = jnp.sum(chosen, -1) if rest is None else jnp.sum(chosen, -1) + jnp.sum(rest, -1)
    entropy = jnp.sum(jnp.where(masked, sight.belief.entropy, 0.0), -1) / jnp.maximum(jnp.sum(masked, -1), 1)
    step = jnp.where(
        state.running, state.forwards, config.step_limit
    )  # out of range, and so dropped, after a row's end
    at = (jnp.arange(len(step)), step)
    return Trace(
        divergence=trace.divergence.at[at].set(sight.divergence, mode="drop"),
        entropy=trace.entropy.at[at].set(entropy, mode="drop"),
        committed=trace.committed.at[at].set(committed, mode="drop"),
        refining=trace.refining.at[at].set(~state.committing, mode="drop"),
    )


def _next_block(model: Denoiser, params: Any, config: DecodeConfig, state: DecodeState, sight: Sight) -> DecodeState:
    """Rows whose block holds nothing masked go to the next one that does, or end where there is none."""
    is_open = open_blocks(config, state.masked)
    none_left = ~jnp.any(is_open, axis=-1)
    done = sight.running & ~jnp.take_along_axis(is_open, state.block[:, None], axis=-1)[:, 0]
    ended = jnp.where(state.settled, StopReason.SETTLED, StopReason.FINISHED)
    return _afresh(model, params, config, state, done).replace(
        block=jnp.where(done & ~none_left, jnp.argmax(is_open, axis=-1), state.block).astype(jnp.int32),
        committing=jnp.where(done, config.refining.begins(len(done)), state.committing),
        reason=jnp.where(done & none_left, ended, state.reason),
    )


def _afresh(model: Denoiser, params: Any, config: DecodeConfig, state: DecodeState, rows: jax.Array) -> DecodeState:
    """The state with what a block gathers as at its start in some rows `[B]`: counts, beliefs fed back, parts."""
    soft = state.soft
    if soft is not None:
        fresh = model.embed(params, jnp.int32(model.config.mask_id))
        soft = jnp.where(rows[:, None, None], fresh, soft)
    return state.replace(
        block_forwards=jnp.where(rows, 0, state.block_forwards),
        commits=jnp.where(rows, 0, state.commits),
        refined=jnp.where(rows, 0, state.refined),
        soft=soft,
        parts=where_rows(rows, fresh_parts(config, len(rows)), state.parts),
    )


def open_blocks(config: DecodeConfig, masked: jax.Array) -> jax.Array:
    """bool `[B, blocks]`: those that hold a masked position, of masked `[B, G]`."""
    return jnp.any(masked.reshape(len(masked), config.num_blocks, config.window), axis=-1)


def _end_rows(model: Denoiser, config: DecodeConfig, state: DecodeState) -> DecodeState:
    """Ends running rows at an end token with nothing masked before it, and at the step limit."""
    if config.end_of_text:
        is_end = jnp.isin(state.tokens, jnp.asarray(model.config.end_ids)) & ~state.masked
        decided = jnp.cumsum(state.masked, axis=-1) == 0
        inside = decided if state.exists is None else decided & state.exists
        ends = state.running & jnp.any(is_end & inside, axis=-1)
        fill = ends[:, None] & state.masked
        state = state.replace(
            tokens=jnp.where(fill, model.config.eos_id, state.tokens),
            masked=state.masked & ~fill,
            reason=jnp.where(ends, StopReason.END_OF_TEXT, state.reason),
        )
    if config.ends_by_count:
        over = state.running & (state.forwards >= config.step_limit)
        state = state.replace(reason=jnp.where(over, StopReason.STEP_LIMIT, state.reason))
    return state


def fresh_parts(config: DecodeConfig, rows: int) -> dict[str, Any]:
    """The states of all parts at the start of a block."""
    return {name: part.start(rows, config.window) for name, part in config.remembering().items()}

"""One step of a decode: embed the canvas, ask the model, read its beliefs, commit some positions, soften the rest.

Axes: B batch, P prompt, G canvas, L = P + G, W active window, D embed, V vocab. Rows are independent: each has its own
phase, block, counts and end, and a row that has ended never changes again.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp

from lrd_jax.decoding.canvas import logit_positions, put_window, take_window
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.forward import cached_hidden, waiting
from lrd_jax.decoding.parts.commit.basic import Turn
from lrd_jax.decoding.parts.mix import blend
from lrd_jax.decoding.reading import no_previous, read_window
from lrd_jax.decoding.state import DecodeState, Sight, StopReason, Trace
from lrd_jax.models import KeyValues, ModelConfig, positions_of
from lrd_jax.sharding import constrain_batch


class Denoiser(Protocol):
    """The model as the loop knows it; `lrd_jax.models.Model` is one."""

    config: ModelConfig

    def table(self, params: Any) -> jax.Array: ...
    def embed(self, params: Any, ids: jax.Array) -> jax.Array: ...
    def hidden(self, params: Any, embeddings: jax.Array, positions: jax.Array, mask: jax.Array) -> jax.Array: ...
    def hidden_and_cache(self, params, embeddings, positions, mask, cache=None) -> tuple[jax.Array, KeyValues]: ...
    def empty_cache(self, params: Any, batch: int, length: int) -> KeyValues: ...
    def logits(self, params: Any, hidden: jax.Array) -> jax.Array: ...


def init_state(model: Denoiser, params, config: DecodeConfig, prompt, prompt_mask, keys) -> DecodeState:
    """The state before the first forward: everything masked, every soft embedding e_[MASK]."""
    B, G, W, S = prompt.shape[0], config.gen_length, config.window, config.step_limit
    zeros = jnp.zeros(B, jnp.int32)
    soft = model.embed(params, jnp.full((B, W), model.config.mask_id))
    trace = Trace(
        divergence=jnp.full((B, S), jnp.nan),
        entropy=jnp.full((B, S), jnp.nan),
        committed=jnp.zeros((B, S), jnp.int32),
        refining=jnp.zeros((B, S), bool),
    )
    return DecodeState(
        prompt=prompt,
        prompt_mask=prompt_mask,
        keys=keys,
        tokens=jnp.full((B, G), model.config.mask_id, jnp.int32),
        masked=jnp.ones((B, G), bool),
        soft=soft,
        previous=no_previous(model, config, soft) if config.measures_divergence else None,
        cache=model.empty_cache(params, B, prompt.shape[1] + G) if config.cache is not None else None,
        block=zeros,
        block_steps=zeros,
        turns=zeros,
        thoughts=zeros,
        committing=jnp.full(B, config.refine is None),
        settled=jnp.zeros(B, bool),
        rule=config.commit.start(B, W),
        steps=zeros,
        refine_steps=zeros,
        reason=jnp.full(B, StopReason.RUNNING, jnp.int32),
        trace=trace if config.trace else None,
    )


def should_continue(state: DecodeState) -> jax.Array:
    """True while any row is running."""
    return jnp.any(state.running)


def step(model: Denoiser, params, config: DecodeConfig, state: DecodeState) -> DecodeState:
    """One forward, and what follows from it, of every row that takes part: all, unless some wait for a refresh."""
    return observed_step(model, params, config, state)[0]


def observed_step(model: Denoiser, params, config: DecodeConfig, state: DecodeState) -> tuple[DecodeState, Sight]:
    """`step`, and what it saw; of a row that ended or waits, meaningless."""
    after, sight = _step(model, params, config, state)
    if config.cache is None or state.prompt.shape[0] == 1:
        return after, sight
    rest = _where(waiting(config, state), state.replace(cache=None), after.replace(cache=None))
    return rest.replace(cache=after.cache), sight


def _step(model: Denoiser, params, config: DecodeConfig, state: DecodeState) -> tuple[DecodeState, Sight]:
    """DESIGN: steps 1 to 8."""
    B, W = state.prompt.shape[0], config.window
    start = state.block * W
    masked = take_window(state.masked, start, W)
    first = state.block_steps == 0

    hidden, cache = _observe(model, params, config, state, start)
    keys = jax.vmap(jax.random.fold_in)(state.keys, state.steps)
    wanted = masked & state.running[:, None]
    reading, previous = read_window(
        model, params, config, hidden, state.previous, wanted, jax.vmap(jax.random.fold_in, (0, None))(keys, 1)
    )
    belief, proposal = reading.belief, reading.proposal
    finite = jnp.all(jnp.isfinite(belief.entropy), axis=-1)
    divergence, kl = jnp.full(B, jnp.inf), None
    if config.measures_divergence:
        kl = jnp.where(first[:, None], jnp.inf, reading.kl)
        divergence = config.divergence(kl, masked)  # Eq. 6

    commits = state.committing
    if config.refine is not None:
        settled = divergence < config.refine.tau
        commits |= settled | (state.thoughts + 1 >= config.refine.max_steps)
    # A stop is asked on the forward right after a commit, which shows what that commit changed.
    asks = (state.turns > 0) & (state.thoughts == 0) & state.running & finite
    fills = jnp.zeros(B, bool)
    if config.stop is not None:
        fills = asks & config.stop(divergence, belief, masked)
    commits = (commits & state.running & finite) | fills

    with jax.named_scope("commit"):  # Eq. 7
        turn = Turn(masked=masked, belief=proposal, number=state.turns, keys=keys, num_blocks=config.num_blocks)
        seen = config.commit.observe(kl, state.rule) if config.commit.needs_kl else state.rule
        chosen, rule = config.commit(turn, seen)
        chosen = jnp.where(fills[:, None], masked, chosen & commits[:, None])
        rule = _where(commits, rule, seen)
        left = masked & ~chosen
        tokens = put_window(state.tokens, jnp.where(chosen, proposal.token, take_window(state.tokens, start, W)), start)

    soft = state.soft
    if config.mix is not None:
        mix, mask_id = config.mix, model.config.mask_id
        with jax.named_scope("mixing"):  # Eq. 4
            soft = blend(reading.mean, belief.entropy, model.table(params), mask_id, mix.r_f, mix.top_p)

    running = state.running
    refine_once = config.refine is None or config.refine.before == "block"
    state = state.replace(
        tokens=tokens,
        masked=put_window(state.masked, left, start),
        soft=soft,
        previous=previous,
        cache=cache,
        block_steps=state.block_steps + running,
        turns=state.turns + commits,
        thoughts=jnp.where(commits, 0, state.thoughts + running),
        committing=(commits | state.committing) if refine_once else state.committing,
        settled=state.settled | fills,
        rule=rule,
        steps=state.steps + running,
        refine_steps=state.refine_steps + (running & ~state.committing),
        reason=jnp.where(running & ~finite, StopReason.NON_FINITE, state.reason),
        trace=_record(config, state, divergence, belief.entropy, masked, chosen),
    )
    block_done = running & finite & ~jnp.any(left, axis=-1)
    more = config.commit.wants_more(turn)
    if more is not None:
        block_done &= fills | ~more
    sight = Sight(masked=masked, belief=belief, token=proposal.token, kl=kl, asks=asks)
    return _end_rows(model, config, _next_block(model, params, config, state, block_done)), sight


def _observe(
    model: Denoiser, params, config: DecodeConfig, state: DecodeState, start: jax.Array
) -> tuple[jax.Array, KeyValues | None]:
    """One forward: hidden states `[B, W, E, D]` that hold the window's logits, E 2 with guidance, else 1; the cache."""
    special, P, W = model.config, state.prompt.shape[1], config.window
    mask_embedding = model.embed(params, jnp.int32(special.mask_id))
    canvas = jnp.where(state.masked[..., None], mask_embedding, model.embed(params, state.tokens))
    if config.mix is not None:
        masked = take_window(state.masked, start, W)[..., None]
        canvas = put_window(canvas, jnp.where(masked, state.soft, take_window(canvas, start, W)), start)
    prompt = model.embed(params, state.prompt)
    mask = jnp.concatenate([state.prompt_mask, jnp.ones_like(state.masked)], axis=1)

    def sequence(prompt):
        return constrain_batch(jnp.concatenate([prompt, canvas], axis=1))

    def forward(prompt):
        hidden = constrain_batch(model.hidden(params, sequence(prompt), positions_of(mask), mask))
        return take_window(hidden, P + logit_positions(start, special.alignment), W)

    with jax.named_scope("forward"):
        if config.cache is not None:
            hidden, cache = cached_hidden(model, params, config, state, sequence(prompt), mask)
            return hidden[:, :, None], cache
        hidden = [forward(prompt)]
        if config.cfg_scale is not None:
            hidden.append(forward(jnp.broadcast_to(mask_embedding, prompt.shape)))
        return jnp.stack(hidden, axis=2), None


def _record(config: DecodeConfig, state: DecodeState, divergence, entropy, masked, chosen) -> Trace | None:
    """The trace with this step's entries: D_t `[B]`, entropies, masks before the commit and commits `[B, W]`."""
    trace = state.trace
    if trace is None:
        return None
    mean_entropy = jnp.sum(jnp.where(masked, entropy, 0.0), -1) / jnp.maximum(jnp.sum(masked, -1), 1)
    step = jnp.where(state.running, state.steps, config.step_limit)  # out of range, and so dropped, where a row ended
    at = (jnp.arange(len(step)), step)
    return Trace(
        divergence=trace.divergence.at[at].set(divergence, mode="drop"),
        entropy=trace.entropy.at[at].set(mean_entropy, mode="drop"),
        committed=trace.committed.at[at].set(jnp.sum(chosen, -1), mode="drop"),
        refining=trace.refining.at[at].set(~state.committing, mode="drop"),
    )


def _next_block(model: Denoiser, params, config: DecodeConfig, state: DecodeState, done: jax.Array) -> DecodeState:
    """Rows `done [B]` with their block go to the next one, or end after the last."""
    last = state.block == config.num_blocks - 1
    ended = jnp.where(state.settled, StopReason.SETTLED, StopReason.FINISHED)
    fresh = model.embed(params, jnp.int32(model.config.mask_id))
    return state.replace(
        block=state.block + (done & ~last),
        block_steps=jnp.where(done, 0, state.block_steps),
        turns=jnp.where(done, 0, state.turns),
        thoughts=jnp.where(done, 0, state.thoughts),
        committing=jnp.where(done, config.refine is None, state.committing),
        soft=jnp.where(done[:, None, None], fresh, state.soft),
        rule=_where(done, config.commit.start(done.shape[0], config.window), state.rule),
        reason=jnp.where(done & last, ended, state.reason),
    )


def _end_rows(model: Denoiser, config: DecodeConfig, state: DecodeState) -> DecodeState:
    """Ends running rows at an end token with nothing masked before it, and at the step limit."""
    if config.end_of_text:
        is_end = jnp.isin(state.tokens, jnp.asarray(model.config.end_ids)) & ~state.masked
        decided = jnp.cumsum(state.masked, axis=-1) == 0
        ends = state.running & jnp.any(is_end & decided, axis=-1)
        fill = ends[:, None] & state.masked
        state = state.replace(
            tokens=jnp.where(fill, model.config.eos_id, state.tokens),
            masked=state.masked & ~fill,
            reason=jnp.where(ends, StopReason.END_OF_TEXT, state.reason),
        )
    if config.max_forwards is not None:
        over = state.running & (state.steps >= config.max_forwards)
        state = state.replace(reason=jnp.where(over, StopReason.STEP_LIMIT, state.reason))
    return state


def _where(rows: jax.Array, new: Any, old: Any) -> Any:
    """Per row `[B]`: new or old, for pytrees of arrays `[B, ...]`."""
    return jax.tree.map(lambda a, b: jnp.where(rows.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)

"""The loop: one jitted `lax.while_loop` over `lrd_jax.decoding.step`, whole, in pieces, or watched.

Axes: B batch, P prompt, G canvas, S `DecodeConfig.step_limit`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lrd_jax.decoding.canvas import check_prompt
from lrd_jax.decoding.compiling import PlatformJit
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.state import DecodeResult, DecodeState, Sight
from lrd_jax.decoding.step import Denoiser, init_state, observed_step, should_continue, step


class Forward(NamedTuple):
    """One forward of a decode, as a look sees it: the states before and after, and what the model said."""

    model: Denoiser
    params: Any
    config: DecodeConfig
    before: DecodeState
    after: DecodeState
    sight: Sight


Look = Callable[..., Any]  # of a `Forward`, and what else it is told; gives arrays [B, ...]


def result_of(config: DecodeConfig, state: DecodeState) -> DecodeResult:
    """What a finished or bounded run answers."""
    each = 1 if config.cfg_scale is None else 2
    return DecodeResult(
        tokens=state.tokens,
        forwards=state.steps * each,
        refine_forwards=state.refine_steps * each,
        stop_reason=state.reason,
        trace=state.trace,
    )


class Decoder:
    """A compiled decode of one model and one config structure; made by `make_decode`.

    Two decoders of equal models and structures share their compiles.

    `decoder(params, prompt)` runs to the end in one `lax.while_loop`. For streaming, `start` gives the state before the
    first forward, `advance` runs at most n more forwards of it, and `result` reads it. `watch` runs to the end and
    records what a function of yours sees in every forward.
    """

    def __init__(self, model: Denoiser, config: DecodeConfig):
        self.model = model
        self.config = config

    def __call__(self, params, prompt, prompt_mask=None, key=None, config: DecodeConfig | None = None) -> DecodeResult:
        """Decodes a batch of prompts.

        Args:
          params: the model's parameters.
          prompt: int `[B, P]` token ids, left-padded.
          prompt_mask: bool `[B, P]`, False at padding; None: no padding.
          key: `jax.random.key` for temperature and random orders, or one key a row `[B]`; a row's draws depend on its
            own key only. None: `jax.random.key(0)`.
          config: another config of the same structure, so that a sweep over numbers compiles once.

        Raises:
          ValueError: see `lrd_jax.decoding.canvas.check_prompt`; or a config of another structure.
        """
        return run_decode(self.model, params, *self._check(prompt, prompt_mask, key, config))

    def start(self, params, prompt, prompt_mask=None, key=None, config: DecodeConfig | None = None) -> DecodeState:
        """The state before the first forward; arguments as in a call."""
        return run_start(self.model, params, *self._check(prompt, prompt_mask, key, config))

    def advance(self, params, state: DecodeState, n: int = 1, config: DecodeConfig | None = None) -> DecodeState:
        """At most `n` more forwards; fewer where every row ends, or waits for a refresh. Any n shares one compile."""
        return run_advance(self.model, params, state, jnp.int32(n), self._same_structure(config))

    def watch(
        self, look: Look, params, prompt, prompt_mask=None, key=None, config: DecodeConfig | None = None, told=()
    ) -> tuple[DecodeResult, Any]:
        """The decode of a call, and what `look` saw in every forward, recorded inside the same loop.

        Args:
          look: `look(forward, *told)` of a `Forward`: arrays `[B, ...]` in any structure, of one shape in all forwards.
            A function of a module or a method of a frozen object: every new one compiles anew.
          told: further arrays that `look` is given.
          The others are those of a call.

        Returns:
          The result, and the arrays `[B, S, ...]`; 0 from a row's end on.
        """
        return run_watched((self.model, look), params, *self._check(prompt, prompt_mask, key, config), told)

    def result(self, state: DecodeState, config: DecodeConfig | None = None) -> DecodeResult:
        return result_of(self._same_structure(config), state)

    def lower(self, params, batch: int, prompt_length: int, place=lambda leaf: leaf) -> jax.stages.Lowered:
        """The decode of prompts `[batch, prompt_length]`, lowered: to read memory, cost and compile time before a run.

        Args:
          params: concrete, or abstract as from `Model.abstract_params`.
          place: gives an abstract input `[batch, ...]` its sharding.
        """
        prompt = jax.ShapeDtypeStruct((batch, prompt_length), jnp.int32)
        mask = jax.ShapeDtypeStruct(prompt.shape, bool)
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch))
        return run_decode.lower(self.model, params, place(prompt), place(mask), place(keys), self.config)

    def _check(self, prompt, prompt_mask, key, config):
        config = self._same_structure(config)
        prompt, prompt_mask = check_prompt(prompt, prompt_mask, config.gen_length, self.model.config)
        return prompt, prompt_mask, _row_keys(key, prompt.shape[0]), config

    def _same_structure(self, config: DecodeConfig | None) -> DecodeConfig:
        if config is None:
            return self.config
        if jax.tree.structure(config) != jax.tree.structure(self.config):
            raise ValueError(
                "config must have the structure this decode was made for and may differ in numbers only; "
                f"got {config}, wanted the structure of {self.config}: call make_decode for another one"
            )
        return config


def make_decode(model: Denoiser, config: DecodeConfig) -> Decoder:
    """A jitted `decode(params, prompt, prompt_mask=None, key=None, config=None) -> DecodeResult`, see `Decoder`.

    Raises:
      ValueError: `config` is no DecodeConfig, or its canvas exceeds the model's context.
    """
    if not isinstance(config, DecodeConfig):
        raise ValueError(
            f"config must be a DecodeConfig, got {type(config).__name__}; try DecodeConfig.lrd(gen_length)"
        )
    if config.gen_length >= model.config.max_length:
        raise ValueError(
            f"gen_length={config.gen_length} leaves no room for a prompt in a context of {model.config.max_length}"
        )
    return Decoder(model, config)


def _row_keys(key: jax.Array | None, batch: int) -> jax.Array:
    key = jax.random.key(0) if key is None else key
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.shape not in ((), (batch,)):
        raise ValueError(f"key must be a jax.random.key or {batch} of them, got {key.dtype} {list(key.shape)}")
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch)) if key.ndim == 0 else key


@PlatformJit
def run_start(model, params, prompt, prompt_mask, keys, config) -> DecodeState:
    """`Decoder.start` on checked arguments."""
    return init_state(model, params, config, prompt, prompt_mask, keys)


@PlatformJit
def run_advance(model, params, state, n, config) -> DecodeState:
    """`Decoder.advance` on checked arguments."""

    def body(carry):
        state, n = carry
        return step(model, params, config, state), n - 1

    return jax.lax.while_loop(lambda carry: should_continue(carry[0]) & (carry[1] > 0), body, (state, n))[0]


@PlatformJit
def run_decode(model, params, prompt, prompt_mask, keys, config) -> DecodeResult:
    """`Decoder.__call__` on checked arguments: the whole decode in one `lax.while_loop`."""
    state = init_state(model, params, config, prompt, prompt_mask, keys)
    state = jax.lax.while_loop(should_continue, functools.partial(step, model, params, config), state)
    return result_of(config, state)


@PlatformJit
def run_watched(watched, params, prompt, prompt_mask, keys, config, told) -> tuple[DecodeResult, Any]:
    """`Decoder.watch` on checked arguments; watched: the model and the look."""
    model, look = watched
    rows, steps = jnp.arange(prompt.shape[0]), config.step_limit

    def see(before):
        after, sight = observed_step(model, params, config, before)
        return after, look(Forward(model, params, config, before, after, sight), *told)

    def body(carry):
        (before, record), (after, seen) = carry, see(carry[0])
        # Out of range, and so dropped, where a row rests.
        at = (rows, jnp.where(after.steps > before.steps, before.steps, steps))
        return after, jax.tree.map(lambda all_, one: all_.at[at].set(one, mode="drop"), record, seen)

    state = init_state(model, params, config, prompt, prompt_mask, keys)
    shapes = jax.eval_shape(see, state)[1]
    record = jax.tree.map(lambda one: jnp.zeros((len(rows), steps, *one.shape[1:]), one.dtype), shapes)
    state, record = jax.lax.while_loop(lambda carry: should_continue(carry[0]), body, (state, record))
    return result_of(config, state), record

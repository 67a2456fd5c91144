"""The loop: one jitted `lax.while_loop` over `lrd_jax.decoding.step`, whole, in pieces, or watched.

Axes: B batch, P prompt, G canvas, S `DecodeConfig.step_limit`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from lrd_jax.decoding.compiling import PlatformJit
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.doors import Shapes, check_model, check_params, check_state
from lrd_jax.decoding.model import Denoiser, attention_block_of
from lrd_jax.decoding.request import Request, check_request, check_room, check_widths
from lrd_jax.decoding.sight import Sight
from lrd_jax.decoding.start import init_state
from lrd_jax.decoding.state import DecodeResult, DecodeState
from lrd_jax.decoding.step import observed_step, should_continue, step
from lrd_jax.errors import Refused
from lrd_jax.sharding import constrain_batch, constrain_kept


class Forward(NamedTuple):
    """One forward of a decode, as a look sees it: the states before and after, and what the model said."""

    model: Denoiser
    params: Any
    config: DecodeConfig
    before: DecodeState
    after: DecodeState
    sight: Sight


Look = Callable[..., Any]  # of a `Forward`, and of further arrays; gives arrays [B, ...]


def result_of(config: DecodeConfig, state: DecodeState) -> DecodeResult:
    """What a finished or bounded run answers."""
    each = 1 if config.cfg_scale is None else 2
    return DecodeResult(
        tokens=state.tokens,
        forwards=state.forwards * each,
        refine_forwards=state.refine_forwards * each,
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
        self._known_states: set[Shapes] = set()

    def __call__(
        self,
        params: Any,
        prompt: Any,
        prompt_mask: Any = None,
        key: jax.Array | None = None,
        *,
        length: Any = None,
        canvas: Any = None,
        config: DecodeConfig | None = None,
    ) -> DecodeResult:
        """Decodes a batch of prompts.

        Args:
          params: the model's parameters.
          prompt: int `[B, P]` token ids, left-padded.
          prompt_mask: bool `[B, P]`, False at padding; None: no padding.
          key: `jax.random.key` for temperature and random orders, or one key a row `[B]`; a row's draws depend on its
            own key only. None where nothing is drawn.
          length: int `[B]`, positions of each row's own canvas: the row decodes as with that gen_length. None: all G.
          canvas: int `[B, G]`, tokens that are given (infilling, constraints), -1 where it is open. None: all open.
          config: another config of the same structure, so that a sweep over numbers compiles once.

        Raises:
          ValueError: see `lrd_jax.decoding.request.check_request`; or a config of another structure.
        """
        config = self._same_structure(config)
        check_params(self.model, params)
        return run_decode(self.model, params, self._request(prompt, prompt_mask, key, length, canvas, config), config)

    def start(
        self,
        params: Any,
        prompt: Any,
        prompt_mask: Any = None,
        key: jax.Array | None = None,
        *,
        length: Any = None,
        canvas: Any = None,
        config: DecodeConfig | None = None,
    ) -> DecodeState:
        """The state before the first forward; arguments as in a call."""
        config = self._same_structure(config)
        check_params(self.model, params)
        state = run_start(self.model, params, self._request(prompt, prompt_mask, key, length, canvas, config), config)
        return _on_device_of(params, state)

    def advance(self, params: Any, state: DecodeState, n: int = 1, config: DecodeConfig | None = None) -> DecodeState:
        """At most `n` more forwards; fewer where every row ends. Any n shares one compile.

        The state is consumed: its arrays are reused for the state that is returned, so copy what you keep of it.

        Raises:
          ValueError: the state of another decoder, or an `n` that is no count.
        """
        config = self._same_structure(config)
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 0 <= n < 2**31:
            raise Refused(f"n={n!r} must be an integer of at least 0: how many forwards to run at most")
        check_params(self.model, params)
        check_state(state, self.model, params, config, self._known_states)
        return run_advance(self.model, params, state, jnp.int32(n), config)

    def watch(
        self,
        look: Look,
        params: Any,
        prompt: Any,
        prompt_mask: Any = None,
        key: jax.Array | None = None,
        *,
        length: Any = None,
        canvas: Any = None,
        config: DecodeConfig | None = None,
        args: tuple = (),
    ) -> tuple[DecodeResult, Any]:
        """The decode of a call, and what `look` saw in every forward, recorded inside the same loop.

        Args:
          look: `look(forward, *args)` of a `Forward`: arrays `[B, ...]` in any structure, of one shape in all forwards.
            A function of a module or a method of a frozen object: every new one compiles anew.
          args: further arrays that `look` is given.
          params, prompt, prompt_mask, key, length, canvas, config: those of a call.

        Returns:
          The result, and the arrays `[B, S, ...]`; 0 from a row's end on.
        """
        config = self._same_structure(config)
        if not callable(look):
            raise Refused(f"look must be a function of a Forward, got a {type(look).__name__}")
        check_params(self.model, params)
        request = self._request(prompt, prompt_mask, key, length, canvas, config)
        return run_watched((self.model, look), params, request, config, args)

    def result(self, state: DecodeState, config: DecodeConfig | None = None) -> DecodeResult:
        if not isinstance(state, DecodeState):
            raise Refused(f"state must be a DecodeState of this decoder, got {type(state).__name__}")
        return result_of(self._same_structure(config), state)

    def lower(
        self, params: Any, batch: int, prompt_length: int, place: Callable[[Any], Any] = lambda leaf: leaf
    ) -> jax.stages.Lowered:
        """The decode of prompts `[batch, prompt_length]`, lowered: to read memory, cost and compile time before a run.

        Args:
          params: concrete, or abstract as from `Model.abstract_params`.
          place: gives an abstract input `[batch, ...]` its sharding.
        """
        for name, size in (("batch", batch), ("prompt_length", prompt_length)):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise Refused(f"{name}={size!r} must be an integer of at least 1")
        check_room(prompt_length, self.config.gen_length, self.model.config)
        prompt = jax.ShapeDtypeStruct((batch, prompt_length), jnp.int32)
        mask = jax.ShapeDtypeStruct(prompt.shape, bool)
        keys = None
        if self.config.draws is not False:
            keys = place(jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch)))
        request = Request(place(prompt), place(mask), keys, None, None)
        return run_decode.lower(self.model, params, request, self.config)

    def _request(self, prompt, prompt_mask, key, length, canvas, config: DecodeConfig) -> Request:
        return check_request(prompt, prompt_mask, key, length, canvas, config, self.model.config)

    def _same_structure(self, config: DecodeConfig | None) -> DecodeConfig:
        if config is None:
            return self.config
        if jax.tree.structure(config) != jax.tree.structure(self.config):
            raise Refused(
                "config must have the structure this decode was made for and may differ in numbers only; "
                f"got {config}, wanted the structure of {self.config}: call make_decode for another one"
            )
        return config


def _on_device_of(params: Any, state: DecodeState) -> DecodeState:
    """The state on the parameters' one device by name, as every later state is: `advance` would compile for both."""
    leaf = jax.tree.leaves(params)[0]
    if isinstance(leaf, Tracer) or not isinstance(leaf, jax.Array) or len(leaf.devices()) > 1:
        return state
    return jax.device_put(state, *leaf.devices())


def make_decode(model: Denoiser, config: DecodeConfig) -> Decoder:
    """A jitted `decode(params, prompt, prompt_mask=None, key=None) -> DecodeResult`, see `Decoder`.

    Raises:
      ValueError: `model` is none, `config` is no DecodeConfig, its canvas exceeds the model's context, or JAX is set to
        64 bits.
    """
    if not isinstance(config, DecodeConfig):
        raise Refused(f"config must be a DecodeConfig, got {type(config).__name__}; try DecodeConfig.lrd(gen_length)")
    check_widths()
    check_model(model)
    if config.gen_length >= model.config.max_length:
        raise Refused(
            f"gen_length={config.gen_length} leaves no room for a prompt in a context of {model.config.max_length}"
        )
    config.asking.check_attention(attention_block_of(model))
    return Decoder(model, config)


@PlatformJit
def run_start(model, params, request: Request, config: DecodeConfig) -> DecodeState:
    """`Decoder.start` on checked arguments."""
    return _laid_out(config, init_state(model, params, config, request))


@functools.partial(PlatformJit, consumed=2)
def run_advance(model, params, state: DecodeState, n: jax.Array, config: DecodeConfig) -> DecodeState:
    """`Decoder.advance` on checked arguments; consumes the state."""

    def body(carry):
        state, n = carry
        return step(model, params, config, state), n - 1

    state, _ = jax.lax.while_loop(lambda carry: should_continue(carry[0]) & (carry[1] > 0), body, (state, n))
    return _laid_out(config, state)


def _laid_out(config: DecodeConfig, state: DecodeState) -> DecodeState:
    """On a mesh: rows split over `batch`, the same at the start and after every round, so that all compile once."""
    cache = constrain_kept(state.cache, config.asking.row_axes(state.cache))
    return jax.tree.map(constrain_batch, state.replace(cache=None)).replace(cache=cache)


@PlatformJit
def run_decode(model, params, request: Request, config: DecodeConfig) -> DecodeResult:
    """`Decoder.__call__` on checked arguments: the whole decode in one `lax.while_loop`."""
    state = init_state(model, params, config, request)
    state = jax.lax.while_loop(should_continue, functools.partial(step, model, params, config), state)
    return result_of(config, state)


@PlatformJit
def run_watched(watched, params, request: Request, config: DecodeConfig, args: tuple) -> tuple[DecodeResult, Any]:
    """`Decoder.watch` on checked arguments; watched: the model and the look."""
    model, look = watched
    rows, steps = jnp.arange(len(request.prompt)), config.step_limit

    def see(before):
        after, sight = observed_step(model, params, config, before)
        return after, look(Forward(model, params, config, before, after, sight), *args)

    def body(carry):
        (before, record), (after, seen) = carry, see(carry[0])
        # Out of range, and so dropped, where a row rests.
        at = (rows, jnp.where(after.forwards > before.forwards, before.forwards, steps))
        return after, jax.tree.map(lambda all_, one: all_.at[at].set(one, mode="drop"), record, seen)

    state = init_state(model, params, config, request)
    shapes = jax.eval_shape(see, state)[1]
    record = jax.tree.map(lambda one: jnp.zeros((len(rows), steps, *one.shape[1:]), one.dtype), shapes)
    state, record = jax.lax.while_loop(lambda carry: should_continue(carry[0]), body, (state, record))
    return result_of(config, state), record

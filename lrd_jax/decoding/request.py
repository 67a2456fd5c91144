"""What a decode may be asked: prompts, keys, lengths and given tokens, checked at the door.

Axes: B batch, P prompt, G canvas.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.model import Vocabulary
from lrd_jax.decoding.setting import MOST_WHOLE, check_rows
from lrd_jax.errors import Refused


@flax.struct.dataclass
class Request:
    """What a decode is asked, checked by `check_request`."""

    prompt: jax.Array  # [B, P] int32
    prompt_mask: jax.Array  # [B, P] bool, False at left padding
    keys: jax.Array | None  # [B] random keys; None: nothing may be drawn
    length: jax.Array | None  # [B] int32, positions of each row's own canvas; None: all G
    canvas: jax.Array | None  # [B, G] int32, the tokens that are given, negative where it is open; None: all open


def check_request(
    prompt: Any, prompt_mask: Any, key: Any, length: Any, canvas: Any, config: DecodeConfig, model: Vocabulary
) -> Request:
    """The arguments of a decode as arrays of their dtypes.

    Raises:
      ValueError: what `check_widths` and `check_prompt` refuse; a decoder that draws without a key; lengths or canvases
        of another shape or dtype or, where values are known, out of range. Rows are named.
    """
    check_widths()
    prompt, prompt_mask = check_prompt(prompt, prompt_mask, config.gen_length, model)
    rows = len(prompt)
    check_rows(config, rows)
    config.sizing.check_vocabulary(model)
    if config.step_limit > MOST_WHOLE:
        raise Refused(
            f"this decoder may take {config.step_limit} forwards, more than the {MOST_WHOLE} that are counted: ask for "
            "fewer steps, refinements or reopenings"
        )
    keys = _row_keys(key, rows, config)
    length = None if length is None else _check_length(length, rows, config)
    canvas = None if canvas is None else _check_canvas(canvas, rows, config, model.vocab_size)
    if length is not None and canvas is not None and _are_known(length, canvas):
        beyond = np.arange(config.gen_length) >= np.asarray(length)[..., None]
        for row in np.flatnonzero(np.any(beyond & (np.asarray(canvas) >= 0), axis=-1))[:1]:
            raise Refused(f"canvas row {row} gives tokens beyond the row's length of {np.asarray(length)[row]}")
    return Request(
        prompt=prompt,
        prompt_mask=prompt_mask,
        keys=keys,
        length=length,
        canvas=canvas,
    )


def check_widths() -> None:
    """Raises ValueError where JAX makes 64-bit numbers: a decode's are of 32, and would not be the same tokens."""
    if jax.config.read("jax_enable_x64"):
        raise Refused("jax_enable_x64 is on, and decoding is built for 32 bits: unset JAX_ENABLE_X64, or turn it off")


def check_prompt(prompt: Any, prompt_mask: Any, gen_length: int, model: Vocabulary) -> tuple[jax.Array, jax.Array]:
    """Returns the prompt as int32 `[B, P]` and its mask as bool `[B, P]` (all True for None).

    Raises:
      ValueError: wrong shape or dtype, prompt + canvas over the model's context, or, where values are known (outside
        jit), a row without a token, padding that is not on the left, or ids outside the vocabulary; naming the row.
    """
    dtype = _dtype(prompt)
    shape = () if dtype is None else np.shape(prompt)
    if len(shape) != 2 or dtype is None or not jnp.issubdtype(dtype, jnp.integer):
        got = f"{dtype} {list(shape)}" if dtype is not None else f"a {type(prompt).__name__}"
        raise Refused(f"prompt must be integer token ids [B, P], got {got}; a single row is prompt[None]")
    if 0 in shape:
        raise Refused(f"prompt must hold at least one row of at least one token, got shape {list(shape)}")
    check_room(shape[1], gen_length, model)
    if prompt_mask is None:
        prompt_mask = np.ones(shape, bool)
    mask_dtype = _dtype(prompt_mask)
    if mask_dtype is None or mask_dtype.kind not in "biu":
        raise Refused(f"prompt_mask must hold booleans, or 0 and 1, got {mask_dtype or type(prompt_mask).__name__}")
    if np.shape(prompt_mask) != shape:
        raise Refused(f"prompt_mask must have the prompt's shape {list(shape)}, got {list(np.shape(prompt_mask))}")
    if _are_known(prompt_mask) and not np.isin(prompt_mask, (0, 1)).all():
        raise Refused("prompt_mask must hold booleans, or 0 and 1; other numbers are in it")
    if _are_known(prompt, prompt_mask):
        _check_values(np.asarray(prompt), np.asarray(prompt_mask).astype(bool), model.vocab_size)
    return jnp.asarray(prompt, jnp.int32), jnp.asarray(prompt_mask, bool)


def check_room(prompt_length: int, gen_length: int, model: Vocabulary) -> None:
    """Raises ValueError where prompt and canvas exceed the model's context."""
    if prompt_length + gen_length > model.max_length:
        raise Refused(
            f"prompt of {prompt_length} tokens + canvas of {gen_length} exceed the model's context of "
            f"{model.max_length}; shorten one of them by {prompt_length + gen_length - model.max_length}"
        )


def _check_values(prompt: np.ndarray, mask: np.ndarray, vocab_size: int) -> None:
    for row in np.flatnonzero(~mask.any(axis=1))[:1]:
        raise Refused(f"prompt row {row} is empty: prompt_mask is False everywhere; give it at least one token")
    for row in np.flatnonzero((mask[:, :-1] & ~mask[:, 1:]).any(axis=1))[:1]:
        raise Refused(f"prompt row {row} is padded on the right or inside; move the padding to the left")
    outside = mask & ((prompt < 0) | (prompt >= vocab_size))
    for row, column in np.argwhere(outside)[:1]:
        raise Refused(
            f"prompt row {row} holds id {prompt[row, column]} at {column}, outside the vocabulary of {vocab_size}"
        )


def _row_keys(key: Any, rows: int, config: DecodeConfig) -> jax.Array | None:
    if key is None:
        if config.draws is not False:
            raise Refused(
                f"this decoder draws at random (commit={config.commit!r}, {config.draw!r}) and was given no key: pass "
                "key=jax.random.key(seed), or one key a row"
            )
        return None
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key) or np.shape(key) not in ((), (rows,)):
        got = type(key).__name__ if dtype is None else f"{dtype} {list(np.shape(key))}"
        raise Refused(f"key must be a jax.random.key or {rows} of them, got {got}")
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rows)) if key.ndim == 0 else key


def _check_length(length: Any, rows: int, config: DecodeConfig) -> jax.Array:
    """Lengths int32 `[B]`; a row of length l decodes as with gen_length l, so that its blocks must fit as there."""
    dtype = _dtype(length)
    if np.shape(length) != (rows,) or dtype is None or not jnp.issubdtype(dtype, jnp.integer):
        raise Refused(f"length must be integers [{rows}], one a row, got {dtype} {list(np.shape(length))}")
    if _are_known(length):
        for row, asked in enumerate(np.asarray(length).tolist()):
            check_own_length(asked, config, f"length of row {row}")
    return jnp.asarray(length, jnp.int32)


def check_own_length(asked: int, config: DecodeConfig, name: str) -> None:
    """Raises ValueError, naming the length, unless a row of it fits the canvas and its blocks."""
    if not 1 <= asked <= config.gen_length:
        raise Refused(f"{name} is {asked}: 1 to gen_length={config.gen_length} was wanted")
    if asked % (config.block_length or 1):
        raise Refused(f"{name} is {asked}: a multiple of block_length={config.block_length} was wanted")
    config.commit.check_canvas(asked, -(-asked // config.window))


def check_stays(config: DecodeConfig) -> None:
    """Raises ValueError where tokens that are given would not stay where they are."""
    if config.length is not None:
        raise Refused(
            f"a canvas gives tokens at their places, and length={config.length!r} moves what stands in it: leave one "
            "of them out"
        )


def _check_canvas(canvas: Any, rows: int, config: DecodeConfig, vocab_size: int) -> jax.Array:
    shape, dtype = (rows, config.gen_length), _dtype(canvas)
    if np.shape(canvas) != shape or dtype is None or not jnp.issubdtype(dtype, jnp.signedinteger):
        raise Refused(
            f"canvas must be signed integers {list(shape)}, token ids where it is given and -1 where it is open, "
            f"got {dtype} {list(np.shape(canvas))}"
        )
    if _are_known(canvas):
        for row, column in np.argwhere(np.asarray(canvas) >= vocab_size)[:1]:
            raise Refused(f"canvas row {row} holds an id at {column} outside the vocabulary of {vocab_size}")
        if np.any(np.asarray(canvas) >= 0):
            check_stays(config)
    return jnp.asarray(canvas, jnp.int32)


def _dtype(x: Any) -> Any:
    """The dtype of an array or of nested numbers; None of anything else."""
    try:
        return x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype
    except (ValueError, TypeError):  # rows of different lengths, random keys in a list
        return None


def _are_known(*arrays: Any) -> bool:
    """Whether their values can be looked at here: not inside jit, and not where other processes hold a part."""
    return not any(isinstance(x, Tracer) or not getattr(x, "is_fully_addressable", True) for x in arrays)

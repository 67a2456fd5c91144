"""A decoder whose settings change without a compile, and the paths of its rows where nothing stops them.

One compiled program serves every `Tuning`: the way of measuring divergence is a number here too.
Axes: B batch, G canvas of one block, S `DecodeConfig.step_limit`, N `len(DIVERGENCES)`.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lrd_jax.batching import batches
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import Decoder, Forward, make_decode
from lrd_jax.decoding.parts.divergence import Divergence
from lrd_jax.decoding.request import check_prompt
from lrd_jax.decoding.setting import Number, number, setting
from lrd_jax.decoding.sight import Sight
from lrd_jax.decoding.state import DecodeResult, StopReason
from lrd_jax.errors import Refused
from lrd_jax.pods import fetch
from lrd_jax.research.calibrate.tuning import REDUCTIONS, SCOPES, Tuning
from lrd_jax.research.record import by_batches, filled, seen

DIVERGENCES = tuple(Divergence(reduce, scope) for reduce in REDUCTIONS for scope in SCOPES)
_ANY_ENTROPY = float(np.finfo(np.float32).max)  # as a guard it lets everything pass


def number_of(tuning: Tuning) -> int:
    """Index in `DIVERGENCES`."""
    return DIVERGENCES.index(Divergence(tuning.reduce, tuning.scope))


def every_divergence(kl: jax.Array, masked: jax.Array) -> jax.Array:
    """D_t `[B, N]` of every kind, nats, from kl and masked `[B, G]`."""
    return jnp.stack([divergence(kl, masked) for divergence in DIVERGENCES], axis=-1)


@setting
class AnyDivergence(Divergence):
    """`DIVERGENCES[number]` of each row, number int `[B]`, for one compile of all."""

    number: Number = number(default=0, high=len(DIVERGENCES) - 1)

    def __call__(self, kl: jax.Array, masked: jax.Array, exists: jax.Array | None = None) -> jax.Array:
        return jnp.take_along_axis(every_divergence(kl, masked), self.number[:, None], axis=-1)[:, 0]


def least_sure(sight: Sight) -> Sight:
    """The sight with one position for all that are masked: the largest entropy and the smallest confidence of any.

    A rule that asks every masked position to be sure says the same of it, and a record takes G times less room.
    """
    belief, masked = sight.belief, sight.masked
    return sight.replace(
        masked=jnp.any(masked, axis=-1, keepdims=True),
        belief=belief.replace(
            token=belief.token[:, :1],
            log_z=belief.log_z[:, :1],
            entropy=jnp.max(jnp.where(masked, belief.entropy, -jnp.inf), axis=-1, keepdims=True),
            confidence=jnp.min(jnp.where(masked, belief.confidence, jnp.inf), axis=-1, keepdims=True),
        ),
    )


def look(forward: Forward) -> dict[str, jax.Array | Sight]:
    """A forward of one block as every stop could be asked.

    Returns:
      "sight": `least_sure`; "divergence" float32 `[B, N]`, nats; "filled" int32 `[B, G]`, the canvas after a stop.
    """
    return {
        "sight": least_sure(seen(forward.sight)),
        "divergence": every_divergence(forward.sight.kl, forward.sight.masked),
        "filled": filled(forward),
    }


@dataclasses.dataclass(frozen=True)
class Path:
    """The record of one unstopped row, on the host.

    Attributes:
      sight: arrays `[S]` and `[S, 1]`, 0 from the row's end on; divergence `[S, N]`: as `look` gives them.
      answers: distinct canvases int32 `[U, G]`; answer `[S]`: which of them a stop at that forward gives.
      tokens: the unstopped answer `[G]`.
      forwards: of the unstopped row.
      switch: the forward, from 1, that ended the refinement and was the first to commit.
    """

    sight: Sight
    divergence: np.ndarray
    answers: np.ndarray
    answer: np.ndarray
    tokens: np.ndarray
    forwards: int
    switch: int

    def outcome(self, at: int) -> tuple[np.ndarray, int]:
        """Tokens `[G]` and forwards of the decode that stops at forward `at`, from 0; -1: nowhere."""
        return (self.tokens, self.forwards) if at < 0 else (self.answers[self.answer[at]], int(at) + 1)


class Tunable:
    """A model, its encoded prompts, and a decoder whose settings change from run to run without a compile.

    Forwards are watched and settings are a row's own, so that this decodes below `lrd_jax.Generator`.
    """

    def __init__(self, model, params, base: DecodeConfig, prompt: np.ndarray, mask: np.ndarray, batch: int):
        """
        Args:
          base: the decoder; it draws nothing (temperature 0).
          prompt, mask: `[R, P]` ids, left-padded, and which of them are prompt.
          batch: rows decoded together.

        Raises:
          ValueError: prompts that the model or the canvas has no room for.
        """
        self.base = base
        self._params, self._batch = params, batch
        prompt, mask = check_prompt(prompt, mask, base.gen_length, model.config)
        self._prompt, self._mask = np.asarray(prompt), np.asarray(mask)
        self._decoder = make_decode(model, self._traced([Tuning.of(base)] * batch))

    @property
    def rows(self) -> int:
        return len(self._prompt)

    def paths(self, jobs: list[tuple[int, Tuning]]) -> list[Path]:
        """Recorded decodes without a stop, each of a row with its own refinement; all jobs have one r_f.

        Raises:
          ValueError: a row whose logits are not finite.
        """
        found = []
        for part, count in batches(jobs, self._batch):
            rows, tunings = map(list, zip(*part, strict=True))
            config = self._traced([tuning.unstopped for tuning in tunings])
            watched = self._decoder.watch(look, self._params, self._prompt[rows], self._mask[rows], config=config)
            result, record = fetch(watched)
            _check_finite(result, rows)
            found += [_path(result, record, i) for i in range(count)]
        return found

    def decoded(self, tuning: Tuning) -> list[tuple[np.ndarray, int]]:
        """Tokens `[G]` and forwards of every row, by decoding."""
        return self._decoded(self._decoder, self._traced([tuning] * self._batch))

    def run(self, config: DecodeConfig) -> list[tuple[np.ndarray, int]]:
        """`decoded`, of any config."""
        return self._decoded(make_decode(self._decoder.model, config), config)

    def _decoded(self, decoder: Decoder, config: DecodeConfig) -> list[tuple[np.ndarray, int]]:
        prompts = self._prompt, self._mask
        result = by_batches(lambda *rows: decoder(self._params, *rows, config=config), *prompts, self._batch)
        _check_finite(result, range(self.rows))
        return list(zip(result.tokens, result.forwards.tolist(), strict=True))

    def _traced(self, tunings: Sequence[Tuning]) -> DecodeConfig:
        """The decoder in the one structure that all settings share: each row with its own refinement, `[B]`, and
        everything else as in the first."""
        config = tunings[0].applied(self.base)
        stop = config.stop
        if stop is not None and stop.max_entropy is None:
            stop = dataclasses.replace(stop, max_entropy=_ANY_ENTROPY)
        return config.replace(
            refine=dataclasses.replace(config.refine, tau=np.float32([tuning.tau_refine for tuning in tunings])),
            divergence=AnyDivergence(number=np.int32([number_of(tuning) for tuning in tunings])),
            stop=stop,
        )


def _check_finite(result: DecodeResult, rows: Sequence[int]) -> None:
    for i in np.flatnonzero(result.stop_reason == StopReason.NON_FINITE)[:1]:
        raise Refused(f"the model's logits for prompt {rows[i] + 1} are not finite; its weights are broken")


def _path(result: DecodeResult, record: dict, row: int) -> Path:
    seen = jax.tree.map(lambda column: column[row].copy(), record)  # a view would keep the whole batch
    answers, answer = np.unique(seen["filled"], axis=0, return_inverse=True)
    return Path(
        sight=seen["sight"],
        divergence=seen["divergence"],
        answers=answers,
        answer=answer.reshape(-1),
        tokens=result.tokens[row],
        forwards=int(result.forwards[row]),
        switch=int(result.refine_forwards[row]),
    )

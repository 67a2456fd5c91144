"""Unstopped decodes that are watched: at every forward, what each stop is asked with and what it would have answered.

One compiled program serves every `Tuning`: the way of measuring divergence is a number here too.
Axes: B batch, G canvas of one block, S `DecodeConfig.step_limit`, T forwards of a row, N `len(DIVERGENCES)`.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lrd_jax.batching import batches
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import Forward, run_decode, run_watched
from lrd_jax.decoding.parts.divergence import Divergence
from lrd_jax.decoding.parts.stop import Stop, asked
from lrd_jax.decoding.request import Request, check_prompt
from lrd_jax.decoding.setting import Number, number, setting
from lrd_jax.decoding.state import DecodeResult, StopReason
from lrd_jax.errors import Refused
from lrd_jax.research.calibrate.tuning import REDUCTIONS, SCOPES, Tuning

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


def what_stops_see(forward: Forward) -> dict[str, jax.Array]:
    """What every stop could be asked with here, and what it would answer; of one block.

    Returns:
      "divergence" float32 `[B, N]`, nats; "entropy" and "confidence" float32 `[B]`, the largest and the smallest of a
      masked position; "asks" bool `[B]`, a stop is asked; "filled" int32 `[B, G]`, the canvas if it stopped here.
    """
    sight, belief = forward.sight, forward.sight.belief
    return {
        "divergence": every_divergence(sight.kl, sight.masked),
        "entropy": jnp.max(jnp.where(sight.masked, belief.entropy, -jnp.inf), axis=-1),
        "confidence": jnp.min(jnp.where(sight.masked, belief.confidence, jnp.inf), axis=-1),
        "asks": asked(sight),
        "filled": jnp.where(sight.masked, sight.proposal.token, forward.before.tokens),
    }


@dataclasses.dataclass(frozen=True)
class Path:
    """The record of one unstopped row, on the host.

    Attributes:
      divergence `[T, N]`, entropy `[T]`, confidence `[T]`, asks `[T]`: as `what_stops_see` gives them.
      answers: distinct canvases int32 `[U, G]`; answer `[T]`: which of them a stop at that forward gives.
      tokens: the unstopped answer `[G]`.
      switch: the forward, from 1, that ended the refinement and was the first to commit.
    """

    divergence: np.ndarray
    entropy: np.ndarray
    confidence: np.ndarray
    asks: np.ndarray
    answers: np.ndarray
    answer: np.ndarray
    tokens: np.ndarray
    switch: int

    def stopped(self, stop: Stop, number: int) -> tuple[np.ndarray, int]:
        """Tokens `[G]` and forwards of the decode with this stop, which reads `DIVERGENCES[number]`.

        Up to its first yes a stop changes nothing, so that the decode is this one.
        """
        says = self.asks & (self.divergence[:, number] < np.float32(stop.tau))
        if stop.max_entropy is not None:
            says &= self.entropy < np.float32(stop.max_entropy)
        if stop.min_confidence is not None:
            says &= self.confidence > np.float32(stop.min_confidence)
        if not says.any():
            return self.tokens, len(self.asks)
        at = int(np.argmax(says))
        return self.answers[self.answer[at]], at + 1


class Bench:
    """A model, its encoded prompts, and a decoder whose settings change from run to run without a compile."""

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
        self._model, self._params, self._batch = model, params, batch
        prompt, mask = check_prompt(prompt, mask, base.gen_length, model.config)
        self._prompt, self._mask = np.asarray(prompt), np.asarray(mask)

    @property
    def rows(self) -> int:
        return len(self._prompt)

    def paths(self, jobs: list[tuple[int, Tuning]]) -> list[Path]:
        """Observed decodes without a stop, each of a row with its own refinement; all jobs have one r_f.

        Raises:
          ValueError: a row whose logits are not finite.
        """
        found = []
        for part, count in batches(jobs, self._batch):
            rows, tunings = zip(*part, strict=True)
            config = self._traced([tuning.unstopped for tuning in tunings])
            result, record = self._run(run_watched, (self._model, what_stops_see), rows, config, ())
            _check_finite(result, rows)
            found += [_path(result, record, i) for i in range(count)]
        return found

    def decoded(self, tuning: Tuning) -> list[tuple[np.ndarray, int]]:
        """Tokens `[G]` and forwards of every row, by decoding."""
        return self.run(self._traced([tuning] * self._batch))

    def run(self, config: DecodeConfig) -> list[tuple[np.ndarray, int]]:
        """`decoded`, of any config."""
        found = []
        for rows, count in batches(range(self.rows), self._batch):
            result = self._run(run_decode, self._model, rows, config)
            _check_finite(result, rows)
            found += list(zip(result.tokens, result.forwards.tolist(), strict=True))[:count]
        return found

    def _run(self, run, static, rows: Sequence[int], *args):
        """What `run` gives for the rows of one batch, on the host."""
        rows = list(rows)
        request = Request(jnp.asarray(self._prompt[rows]), jnp.asarray(self._mask[rows]), None, None, None)
        return jax.device_get(run(static, self._params, request, *args))

    def _traced(self, tunings: Sequence[Tuning]) -> DecodeConfig:
        """The decoder in the one structure that all settings share: each row with its own refinement, `[B]`, and
        everything else as in the first."""
        config = tunings[0].applied(self.base)
        guard = _ANY_ENTROPY if config.stop.max_entropy is None else config.stop.max_entropy
        return config.replace(
            refine=dataclasses.replace(config.refine, tau=np.float32([tuning.tau_refine for tuning in tunings])),
            divergence=AnyDivergence(number=np.int32([number_of(tuning) for tuning in tunings])),
            stop=dataclasses.replace(config.stop, max_entropy=guard),
        )


def _check_finite(result: DecodeResult, rows: Sequence[int]) -> None:
    for i in np.flatnonzero(result.stop_reason == StopReason.NON_FINITE)[:1]:
        raise Refused(f"the model's logits for prompt {rows[i] + 1} are not finite; its weights are broken")


def _path(result: DecodeResult, record: dict[str, np.ndarray], row: int) -> Path:
    T = int(result.forwards[row])
    cut = {name: column[row, :T] for name, column in record.items()}
    answers, answer = np.unique(cut.pop("filled"), axis=0, return_inverse=True)
    return Path(
        **cut,
        answers=answers,
        answer=answer.reshape(-1),
        tokens=result.tokens[row],
        switch=int(result.refine_forwards[row]),
    )

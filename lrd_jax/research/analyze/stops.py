"""Early stops, read from the record of a decode that never stopped, see `lrd_jax.research.record`.

Axes: S forwards, B rows, W canvas.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np

from lrd_jax.checkpoint import Loaded
from lrd_jax.decoding.parts.stop import Stop
from lrd_jax.research.analyze.domains import Domain
from lrd_jax.research.record import Recording, first_stop
from lrd_jax.research.statistics import share
from lrd_jax.text import answer_lengths, decode_text

SURE = 0.9  # a stop is confident where the positions that it fills are, on average, at least this sure
TAUS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6, 1e-7)
MAX_ENTROPIES = (4.0, 2.0, 1.5, 1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
KL_EDGES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, np.inf)
ENTROPY_EDGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, np.inf)


@dataclasses.dataclass(frozen=True)
class Unstopped:
    """A domain's record, and what can be said about every forward of it."""

    domain: Domain
    loaded: Loaded
    record: Recording
    changed: np.ndarray  # [S, B] bool, a stop here gives another answer than the unstopped run
    confidence: np.ndarray  # [S, B] mean over the masked positions
    largest_entropy: np.ndarray  # [S, B] nats, over the masked positions
    right: np.ndarray | None  # [B] bool, the unstopped answer

    @classmethod
    def of(cls, domain: Domain, loaded: Loaded, record: Recording) -> "Unstopped":
        ends = answer_lengths(record.final, loaded.config.end_ids)
        seen = np.arange(record.final.shape[1]) <= ends[:, None]  # what follows the first end token is no answer
        open_ = np.maximum(record.sight.masked.sum(axis=-1), 1)
        right = None
        if domain.problems is not None:
            texts = decode_text(loaded.tokenizer, record.final, loaded.config)
            right = np.array([domain.right(row, text) for row, text in enumerate(texts)])
        return cls(
            domain=domain,
            loaded=loaded,
            record=record,
            changed=((record.filled != record.final) & seen).any(axis=-1),
            confidence=np.where(record.sight.masked, record.sight.belief.confidence, 0.0).sum(axis=-1) / open_,
            largest_entropy=np.where(record.sight.masked, record.sight.belief.entropy, 0.0).max(axis=-1),
            right=right,
        )

    def right_at(self, at: np.ndarray) -> np.ndarray | None:
        """bool `[B]`: whether the answer is right where row b stops at forward at[b] (-1: it does not stop)."""
        if self.right is None:
            return None
        right = self.right.copy()
        rows = np.flatnonzero((at >= 0) & self.changed[at, np.arange(len(at))])
        if len(rows):
            tokens = self.record.filled[at[rows], rows]
            for row, text in zip(rows, decode_text(self.loaded.tokenizer, tokens, self.loaded.config), strict=True):
                right[row] = self.domain.right(row, text)
        return right


def outcome(runs: list[Unstopped], stop: Stop) -> dict[str, Any]:
    """What a stop does to all rows: how many it ends, what that saves, and what it costs.

    `changed` counts answers that are not the unstopped run's; `confident and changed` those of them whose filled
    positions were on average `SURE`; `harmed` answers that were right without the stop and wrong with it, `mended` the
    reverse. Shares are of all rows, with 95 % intervals.
    """
    ends, forwards, changed, sure, before, after = [], [], [], [], [], []
    for run in runs:
        at = first_stop(stop, run.record.sight)
        rows = np.arange(len(at))
        ends.append(at >= 0)
        forwards.append(np.where(at >= 0, at + 1, run.record.forwards))
        changed.append((at >= 0) & run.changed[at, rows])
        sure.append(changed[-1] & (run.confidence[at, rows] >= SURE))
        if run.right is not None:
            before.append(run.right)
            after.append(run.right_at(at))
    facts = {
        "tau": stop.tau,
        "max_entropy": stop.max_entropy,
        "stopped": share(np.concatenate(ends)),
        "forwards": float(np.concatenate(forwards).mean()),
        "changed": share(np.concatenate(changed)),
        "confident and changed": share(np.concatenate(sure)),
    }
    if before:
        was, now = np.concatenate(before), np.concatenate(after)
        facts |= {"accuracy": share(now), "harmed": share(was & ~now), "mended": share(~was & now)}
    return facts


def by_divergence(runs: list[Unstopped]) -> list[dict[str, Any]]:
    """Stops in bins of their D_t: those that some tau of `TAUS` alone would make, each counted once."""
    kl, changed, sure, entropy = [], [], [], []
    for run in runs:
        stops = {(t, b) for tau in TAUS for b, t in enumerate(first_stop(Stop(tau), run.record.sight)) if t >= 0}
        for t, b in stops:
            kl.append(run.record.sight.divergence[t, b])
            changed.append(run.changed[t, b])
            sure.append(run.confidence[t, b] >= SURE)
            entropy.append(run.largest_entropy[t, b])
    kl, changed, sure, entropy = map(np.array, (kl, changed, sure, entropy))
    bins = []
    for low, high in itertools.pairwise(KL_EDGES):
        here = (kl >= low) & (kl < high)
        if here.any():
            bins.append(
                {
                    "from": low,
                    "to": high if np.isfinite(high) else None,
                    "stops": int(here.sum()),
                    "changed": share(changed[here]),
                    "confident and changed": share((changed & sure)[here]),
                    "median of the largest entropy": float(np.median(entropy[here])),
                }
            )
    return bins


def by_divergence_and_entropy(runs: list[Unstopped]) -> dict[str, Any]:
    """Every forward on which a stop is asked, by its D_t and the largest entropy of a masked position.

    Returns:
      Edges of the bins, and counts `[KL bins][entropy bins]`: of forwards, and of those where stopping changes the
      answer.
    """
    asked = [run.record.asked for run in runs]
    kl = np.concatenate([run.record.sight.divergence[a] for run, a in zip(runs, asked, strict=True)])
    entropy = np.concatenate([run.largest_entropy[a] for run, a in zip(runs, asked, strict=True)])
    changed = np.concatenate([run.changed[a] for run, a in zip(runs, asked, strict=True)])
    edges = [KL_EDGES, ENTROPY_EDGES]
    return {
        "kl_edges": list(KL_EDGES[:-1]),
        "entropy_edges": list(ENTROPY_EDGES[:-1]),
        "forwards": np.histogram2d(kl, entropy, edges)[0].astype(int).tolist(),
        "changed": np.histogram2d(kl[changed], entropy[changed], edges)[0].astype(int).tolist(),
    }


def wrong_tokens(runs: list[Unstopped], stop: Stop) -> dict[str, Any]:
    """How sure a stop was of the tokens of the answer that the unstopped run gave otherwise, and of the others."""
    wrong, same = [], []
    for run in runs:
        at = first_stop(stop, run.record.sight)
        rows = np.flatnonzero(at >= 0)
        filled = run.record.sight.masked[at[rows], rows]
        ends = answer_lengths(run.record.final, run.loaded.config.end_ids)[rows]
        filled &= np.arange(filled.shape[1]) <= ends[:, None]
        confidence = run.record.sight.belief.confidence[at[rows], rows]
        differs = run.record.filled[at[rows], rows] != run.record.final[rows]
        wrong.append(confidence[filled & differs])
        same.append(confidence[filled & ~differs])
    return {name: _confidences(np.concatenate(values)) for name, values in (("differ", wrong), ("agree", same))}


def _confidences(values: np.ndarray) -> dict[str, Any]:
    edges = np.linspace(0, 1, 11)
    return {
        "tokens": len(values),
        "quartiles": np.quantile(values, (0.25, 0.5, 0.75)).tolist() if len(values) else None,
        "histogram": np.histogram(values, edges)[0].tolist(),  # ten bins of confidence from 0 to 1
    }


def tuned(run: Unstopped, risk: float) -> dict[str, Stop]:
    """The loosest stop of each kind that changes at most `risk` of this domain's answers, where there is one.

    The kinds: a small divergence alone, and the paper's tau with a guard on the largest entropy.
    """
    kinds = {
        "KL alone": [Stop(tau) for tau in TAUS],
        "KL < 0.1 and entropy": [Stop(max_entropy=h) for h in MAX_ENTROPIES],
    }
    chosen = {}
    for kind, stops in kinds.items():
        for stop in stops:
            if outcome([run], stop)["changed"]["share"] <= risk:
                chosen[kind] = stop
                break
    return chosen

"""Rules of the field's decoders for the slow twin, see `twin`: DUS, WINO, ReMix. One row, NumPy, float64.

Axes: W active window, V vocab.
"""

import numpy as np
from twin import highest


class Dus:
    """Rounds of positions that stand ever nearer, each of all that is left of it, or of what is sure enough."""

    def __init__(self, base=2, threshold=None):
        self.base, self.threshold = base, threshold

    def begin(self, width):
        self.rounds, taken, step = [], set(), width
        while len(taken) < width:
            step = max(1, width // self.base ** (len(self.rounds) + 1))
            self.rounds.append([k for k in range(width) if k not in taken and k % step == 0])
            taken |= set(self.rounds[-1])
        self.left = []

    def __call__(self, belief, masked, step):
        while not any(masked[k] for k in self.left):
            self.left = self.left + self.rounds.pop(0)
        turn = np.zeros(len(masked), bool)
        turn[self.left] = True
        turn &= masked
        self.left = self.left + (self.rounds.pop(0) if self.rounds else [])
        if self.threshold is None:
            return turn
        sure = turn & (belief.conf >= self.threshold)
        return sure if sure.any() else highest(belief.conf, turn, 1)


def capped(threshold):
    """All that is surer, the surest of them up to a cap, the surest of all where none is."""

    def rule(belief, masked, step):
        cap = min(max(int(0.7 * masked.sum()), 5), 20)
        sure = int((masked & (belief.conf > threshold)).sum())
        return highest(belief.conf, masked, min(max(sure, 1), cap))

    return rule


class Wino:
    """WINO: wide commits, judged by their shadows on every later forward."""

    shadow = True

    def __init__(self, threshold, threshold_back):
        self.threshold, self.threshold_back = threshold, threshold_back

    def begin(self, width):
        self.active, self.last = set(), 30

    def __call__(self, belief, masked, step):
        accept = capped(self.threshold)(belief, masked, step)
        remask = np.zeros(len(masked), bool)
        if accept.sum() > 1:
            low = [i for i in sorted(self.active) if belief.shadow[i] < self.threshold_back]
            if len(low) >= self.last:
                low = sorted(low, key=lambda i: belief.shadow[i])[: self.last - 1]
            remask[low] = True
        self.active = (self.active | set(np.flatnonzero(accept))) - set(np.flatnonzero(remask))
        self.last = int(accept.sum())
        return accept, remask


EPS = 2.0**-23


def js_of(p, q):
    """Jensen-Shannon divergence of two beliefs, both clamped from below and not normalised again."""
    p, q = np.maximum(p, EPS), np.maximum(q, EPS)
    m = (p + q) / 2
    return 0.5 * np.sum(p * np.log(p / m)) + 0.5 * np.sum(q * np.log(q / m))


class Remix:
    """ReMix's mixture, and its resets."""

    def __init__(self, beta, js, recovers=False):
        self.beta, self.js, self.recovers = beta, js, recovers

    def begin(self, width):
        self.reset = np.zeros(width, bool)
        self.events = []

    def __call__(self, model, belief, masked):
        e_mask = model.table[model.mask_id]
        soft = np.tile(e_mask, (len(masked), 1))
        if belief.before is None:
            return soft
        for i in range(len(masked)):
            p, history = belief.probs[i], belief.before[i] * (not self.reset[i])
            moved = js_of(history, p) > self.js and not (self.recovers and self.reset[i])
            self.reset[i] = masked[i] and moved
            if self.reset[i]:
                continue
            order = np.argsort(-p, kind="stable")[:50]
            chosen = order[np.cumsum(p[order]) <= np.clip(2 * p.max(), 0.2, 0.9)]
            chosen = order[:1] if len(chosen) == 0 else chosen
            mean = p[chosen] @ model.table[chosen] + (1 - p[chosen].sum()) * e_mask
            soft[i] = (1 - self.beta) * e_mask + self.beta * mean
        return soft

"""The field's caches in plain NumPy, float64, one row: `cache(model, x, now)` gives aligned logits `[L, V]`.

`now` says what the loop knows: P, masked `[G]`, the window's places in the canvas, the block's forwards so far (age)
and the row's (forwards). Everything is recomputed all the same: what is kept only takes the place of what is new.
"""

import numpy as np


class Kept:
    """Keys, values and logits as the last call that fed a position made them."""

    def __init__(self):
        self.cache = self.logits = None

    def call(self, model, x, fed):
        """A forward that feeds `fed`, bool `[L]`."""
        if fed.all():
            self.logits, self.cache = model.forward(x)
            return self.logits
        logits, self.cache = model.forward(x, self.cache, fed)
        speaks = np.concatenate([fed[:1], fed[:-1]]) if model.dream else fed
        self.logits = np.where(speaks[:, None], logits, self.logits)
        return self.logits


class DKV(Kept):
    """dKV-Cache-Decode, and "decoded" of its code for Dream."""

    def __init__(self, refresh, shift="un"):
        super().__init__()
        self.refresh, self.shift = refresh, shift

    def __call__(self, model, x, now):
        decided = np.concatenate([np.ones(now.P, bool), ~now.masked])
        every = np.ones(len(x), bool)
        on_time = now.age % self.refresh == 0
        if not model.dream:
            fed = every if on_time or now.age < 2 else ~self.before
            self.before = decided
            return self.call(model, x, fed)
        if now.age == 0:
            skipped, self.next = None, np.append(decided[1:], decided[-1])
        else:
            skipped, self.next = self.next, self.rebuilt(decided)
        return self.call(model, x, every if on_time else ~skipped)

    def rebuilt(self, decided):
        if self.shift == "un":
            return np.append(decided[1:], decided[0])
        skipped = decided[:-1] & decided[1:]
        return np.append(skipped, skipped[-1])


class Prefill(Kept):
    """dKV-Cache-Prefill."""

    def __call__(self, model, x, now):
        fed = np.arange(len(x)) >= (now.P - 1 if model.dream else now.P)
        return self.call(model, x, np.ones(len(x), bool) if now.forwards == 0 else fed)

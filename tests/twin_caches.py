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


class Greedy(Kept):
    """dKV-Cache-Greedy beside `order`, the canvas' places in the order of their commits, one a forward."""

    def __init__(self, refresh, window, order):
        super().__init__()
        self.refresh, self.window, self.order = refresh, window, order

    def __call__(self, model, x, now):
        masked = np.concatenate([np.zeros(now.P, bool), now.masked])
        fed = np.ones(len(x), bool)
        if now.age % self.refresh:
            at = now.P + next(place for place in self.order if now.masked[place])
            fed = self.before & ~masked
            fed[at] = True
            left, right, count = at - 1, at + 1, 0
            while count < self.window and (left >= 0 or right < len(x)):
                for place in (left, right):
                    if 0 <= place < len(x) and count < self.window and self.before[place] and not fed[place]:
                        fed[place], count = True, count + 1
                left, right = left - 1, right + 1
            fed[at - 1] |= model.dream
        self.before = masked
        return self.call(model, x, fed)


class DLLM:
    """dLLM-Cache, block by block as its paper has it."""

    def __init__(self, prompt_every, response_every, rho):
        self.prompt_every, self.response_every, self.rho = prompt_every, response_every, rho

    def __call__(self, model, x, now):
        if now.forwards == 0:
            self.kept = [{} for _ in model.blocks]
        for number, (block, kept) in enumerate(zip(model.blocks, self.kept, strict=True)):
            x = self.block(model, block, kept, x, now, first=number == 0)
        raw = model.norm(x, model.final_norm) @ model.head.T
        return np.concatenate([raw[:1], raw[:-1]]) if model.dream else raw

    def block(self, model, block, kept, x, now, first):
        (norm1, wq, wk, wv, out, norm2, gate, up, down), (q_bias, k_bias, v_bias) = block
        L, D = x.shape
        h = model.norm(x, norm1)
        values = h @ wv.T + v_bias
        rows = list(range(now.P)) if first or now.forwards % self.prompt_every == 0 else []
        response = np.arange(now.P, L)
        if first or now.forwards % self.response_every == 0:
            rows += list(response)
        elif self.rho > 0:
            old, new = kept["v"][response], values[response]
            cosine = (old * new).sum(1) / np.maximum(np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1), 1e-8)
            rows += list(response[np.argsort(cosine, kind="stable")[: int(len(response) * self.rho)]])
            kept["v"][response] = new
        if not kept:
            kept |= {"k": np.empty_like(values), "v": values.copy(), "a": np.empty_like(x), "f": np.empty_like(x)}
        kept["k"][rows], kept["v"][rows] = (h @ wk.T + k_bias)[rows], values[rows]
        heads = [y.reshape(L, -1, D // model.N) for y in (h @ wq.T + q_bias, kept["k"], kept["v"])]
        q, k = (model.rope(y, np.arange(L)) for y in heads[:2])
        seen = model.attend(q, k, heads[2], np.ones((L, L), bool)).reshape(L, D)
        kept["a"][rows] = (seen @ out.T)[rows]
        x = x + kept["a"]
        h = model.norm(x, norm2)
        gated = h @ gate.T
        kept["f"][rows] = ((gated / (1 + np.exp(-gated)) * (h @ up.T)) @ down.T)[rows]
        return x + kept["f"]


class Sparse:
    """Sparse-dLLM."""

    def __init__(self, keep_ratio, kernel):
        self.keep_ratio, self.kernel = keep_ratio, kernel

    def __call__(self, model, x, now):
        L, D = x.shape
        own = now.P + now.window
        rest = np.setdiff1d(np.arange(L), own)
        fed = np.union1d(own - model.dream, own)  # Dream: and the position that holds the first one's logits
        if now.age < 2:
            fed, self.kept = np.arange(L), [(None, None) for _ in model.blocks]
        x, filled = x[fed], []
        for block, (old_k, old_v) in zip(model.blocks, self.kept, strict=True):
            (norm1, wq, wk, wv, out, norm2, gate, up, down), biases = block
            h = model.norm(x, norm1)
            heads = [
                (h @ w.T + b).reshape(len(fed), -1, D // model.N) for w, b in zip((wq, wk, wv), biases, strict=True)
            ]
            q, k, v = model.rope(heads[0], fed), model.rope(heads[1], fed), heads[2]
            if now.age < 2:
                keys, values = k, v
                best = self.important(q[own], k, rest)
                filled.append((k[best], v[best]))
            else:
                inside = np.isin(fed, own)
                keys, values = np.concatenate([old_k, k[inside]]), np.concatenate([old_v, v[inside]])
            sees = np.ones((len(q), len(keys)), bool)
            x = x + model.attend(q, keys, values, sees).reshape(len(fed), D) @ out.T
            h = model.norm(x, norm2)
            gated = h @ gate.T
            x = x + (gated / (1 + np.exp(-gated)) * (h @ up.T)) @ down.T
        if now.age == 1:
            self.kept = filled
        logits = np.zeros((L, len(model.head)))
        logits[fed] = model.norm(x, model.final_norm) @ model.head.T
        return np.concatenate([logits[:1], logits[:-1]]) if model.dream else logits

    def important(self, q, k, rest):
        """The places outside the block that are kept, the most important first."""
        mean = q.mean(axis=0)
        shared = len(mean) // k.shape[1]
        score = np.array([np.mean([mean[n] @ k[j, n // shared] for n in range(len(mean))]) for j in rest])
        reach = self.kernel // 2
        pooled = [score[max(0, i - reach) : i + reach + 1].max() for i in range(len(score))]
        return rest[np.argsort(-np.array(pooled), kind="stable")[: int(len(rest) * self.keep_ratio)]]

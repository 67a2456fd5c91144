"""The slow twin: DESIGN's decoding semantics in plain NumPy, float64, one row and one position at a time.

Written to be read beside `lrd_jax/decoding/step.py`: the same step, the same order, nothing fast and nothing shared. A
twin row has no padding; a left-padded row of the loop must give what its bare prompt gives here.

Axes: P prompt, G canvas, W active window, L = P + G, D embed, V vocab.
"""

from types import SimpleNamespace

import numpy as np
from twin_model import softmax


def entropy_of(p):
    q = p[p > 0]
    return -np.sum(q * np.log(q))


def kl_of(p, previous):
    q = p > 0
    return np.sum(p[q] * np.log(p[q] / previous[q]))


def nucleus_of(p, top_p):
    """The most probable tokens, fewest first to reach top_p of the mass; the token that crosses it is in."""
    order = np.argsort(-p, kind="stable")
    reached = np.flatnonzero(np.cumsum(p[order]) >= top_p)
    size = reached[0] + 1 if len(reached) else len(p)
    return order[:size]


def highest(scores, masked, count):
    """The `count` masked positions of highest score, lowest position on a tie."""
    order = sorted(np.flatnonzero(masked), key=lambda i: (-scores[i], i))
    chosen = np.zeros(len(masked), bool)
    chosen[order[:count]] = True
    return chosen


# Commit rules. Each is `rule(belief, masked, step) -> chosen`, bools over the window; `step` counts the commits of the
# block from 0, `belief` holds logits, probs, entropy, conf of the window.


def lowest_entropy(per_step=1, threshold=None):
    def rule(belief, masked, step):
        chosen = highest(-belief.entropy, masked, per_step)
        return chosen if threshold is None else chosen | (masked & (belief.conf > threshold))

    return rule


def llada(steps, scores=None):
    """LLaDA's schedule of `steps` a block, by confidence or by recorded random `scores` [steps, W]."""

    n = 0  # masked when the block began

    def rule(belief, masked, step):
        nonlocal n
        n = masked.sum() if step == 0 else n
        return highest(belief.conf if scores is None else scores[step], masked, n // steps + (step < n % steps))

    return rule


def fast_threshold(threshold):
    """Fast-dLLM: the most confident position always, the others from the threshold on."""
    return lambda belief, masked, step: highest(belief.conf, masked, 1) | (masked & (belief.conf >= threshold))


def dream_time(step, steps, eps=1e-3):
    """Share of the masked positions that Dream commits at a step: 1 - s / t in float32, everything at the last."""
    if step >= steps - 1:
        return np.float32(1)
    width = (np.float32(eps) - np.float32(1)) / np.float32(steps)
    half = (steps + 1) // 2  # linspace counts from the nearer end
    t, s = (
        np.float32(1) + width * np.float32(i) if i < half else np.float32(eps) - width * np.float32(steps - i)
        for i in (step, step + 1)
    )
    return np.float32(1) - s / t


def dream_confidence(order, logits, top_p=None, top_k=None):
    """Confidence of one position: its logits `[V]` are cut by top_p (the crossing token stays), then by top_k."""
    if top_p is not None and top_p < 1:
        kept = np.full(len(logits), -np.inf)
        ids = np.argsort(-logits, kind="stable")
        ids = ids[np.concatenate([[True], np.cumsum(softmax(logits[ids]))[:-1] <= top_p])]
        kept[ids] = logits[ids]
        logits = kept
    if top_k is not None:
        logits = np.where(logits < np.sort(logits)[-top_k], -np.inf, logits)
    p = softmax(logits)
    first, second = np.sort(p)[[-1, -2]]
    return {"maskgit_plus": first, "topk_margin": first - second, "entropy": -entropy_of(p)}[order]


def dream(order, steps, top_p=None, top_k=None):
    """Dream's maskgit_plus, topk_margin or entropy order with its schedule."""

    def rule(belief, masked, step):
        count = int(np.float32(masked.sum()) * dream_time(step, steps))
        return highest([dream_confidence(order, row, top_p, top_k) for row in belief.logits], masked, count)

    return rule


def dream_origin(steps, uniforms):
    """Each masked position by chance; `uniforms` [steps, W] are the draws, by position."""
    return lambda belief, masked, step: masked & (uniforms[step] < dream_time(step, steps))


def dream_threshold(steps, threshold):
    """Fast-dLLM's `confidence_threshold` for Dream: N // steps a step, and what earlier steps held back."""
    held = 0

    def rule(belief, masked, step):
        nonlocal held
        held = 0 if step == 0 else held
        budget = held + (len(masked) // steps if step < steps else 0)
        best = highest(belief.conf, masked, budget)
        chosen = highest(belief.conf, masked, 1) | (best & (belief.conf >= threshold))
        held = max(budget - chosen.sum(), 0)
        return chosen

    return rule


def factor(f):
    """Fast-dLLM: of the most confident masked positions the largest n with (n + 1)(1 - c_n) < f, at least one."""

    def rule(belief, masked, step):
        conf = np.sort(belief.conf[masked])[::-1]
        fits = [n for n in range(1, len(conf) + 1) if (n + 1) * (1 - conf[n - 1]) < f]
        return highest(belief.conf, masked, max(fits, default=1))

    return rule


def margin(threshold):
    """Every masked position whose two best tokens are at least `threshold` apart, and the one where they are most."""

    def rule(belief, masked, step):
        best = np.sort(belief.probs, axis=-1)
        gap = best[:, -1] - best[:, -2]
        return highest(gap, masked, 1) | (masked & (gap >= threshold))

    return rule


def entropy_bound(gamma):
    """EB-Sampler: as many of the lowest entropies as keep their sum without the largest within gamma, at least one."""

    def rule(belief, masked, step):
        entropy = np.sort(belief.entropy[masked])
        fits = [n for n in range(1, len(entropy) + 1) if entropy[:n].sum() - entropy[:n].max() <= gamma]
        return highest(-belief.entropy, masked, max(fits))

    return rule


class Klass:
    """KLASS: all sure positions whose KL was small `patience` times running, else the most confident one."""

    carried = True  # a block's first KL is to the last forward of the block before

    def __init__(self, kl, confidence, patience):
        self.kl, self.confidence, self.patience = kl, confidence, patience

    def begin(self, width):
        self.history = []

    def observe(self, kl):
        self.history.append(kl)

    def __call__(self, belief, masked, step):
        recent = self.history[-self.patience :]
        calm = np.all(np.array(recent) < self.kl, axis=0) & (len(recent) == self.patience)
        stable = masked & calm & (belief.conf > self.confidence)
        return stable if stable.any() else highest(belief.conf, masked, 1)


def everything(belief, masked, step):
    """All that is masked."""
    return masked


class Settling:
    """Each position once its own KL was small `patience` times running; after `wait` forwards of none, the surest."""

    def __init__(self, kl, confidence, patience, wait):
        self.kl, self.confidence, self.patience, self.wait = kl, confidence, patience, wait
        self.history, self.idle = [], 0

    def observe(self, kl):
        if np.isinf(kl).any():  # a new block
            self.history, self.idle = [], 0
        self.history.append(kl)

    def __call__(self, belief, masked, step):
        recent = self.history[len(self.history) - self.patience :]
        calm = np.all(np.array(recent) < self.kl, axis=0) & (len(recent) == self.patience)
        chosen = masked & calm & (belief.conf > self.confidence)
        self.idle += 1
        if not chosen.any() and self.idle >= self.wait:
            chosen = highest(belief.conf, masked, 1)
        self.idle = 0 if chosen.any() else self.idle
        return chosen


class Reopening:
    """Another rule, whose commits are taken back where another token is sure now, each position `times` at most."""

    def __init__(self, rule, confidence, times):
        self.rule, self.confidence, self.times = rule, confidence, times

    def observe(self, kl):
        if np.isinf(kl).any():  # a new block
            self.mine, self.left = {}, [self.times] * len(kl)
        if hasattr(self.rule, "observe"):
            self.rule.observe(kl)

    def __call__(self, belief, masked, step):
        chosen, now = self.rule(belief, masked, step), belief.probs.argmax(axis=-1)
        reopened = np.zeros(len(masked), bool)
        for i, token in list(self.mine.items()):
            if now[i] != token and belief.conf[i] > self.confidence and self.left[i]:
                reopened[i] = True
                self.left[i] -= 1
                del self.mine[i]
        self.mine |= {i: now[i] for i in np.flatnonzero(chosen)}
        return chosen, reopened


def dream_in_blocks(steps=None, threshold=None, top_k=None):
    """Fast-dLLM for Dream: a block's first commit is its first position alone; then by threshold or by schedule."""

    def rule(belief, masked, step):
        if step == 0:
            return np.arange(len(masked)) == 0
        if threshold is None:
            return dream("entropy", steps, top_k=top_k)(belief, masked, step)
        conf = np.array([dream_confidence("maskgit_plus", row, top_k=top_k) for row in belief.logits])
        return fast_threshold(threshold)(SimpleNamespace(conf=conf), masked, step)

    return rule


def doubts(belief, masked, step):
    """The surest position; on every third commit the committed position that is least sure now is opened again."""
    reopened = np.zeros(len(masked), bool)
    if step % 3 == 2 and not masked.all():
        reopened[np.argmax(np.where(masked, -1.0, belief.entropy))] = True
    return highest(-belief.entropy, masked, 1), reopened


def twin_decode(
    model,
    prompt,
    *,
    gen_length,
    block_length=None,
    mix=None,
    refine=None,
    commit=None,
    stop=None,
    divergence=("mean", "block"),
    suppress_mask=True,
    cfg_scale=0.0,
    cache=None,
    end_ids=(),
    canvas=None,
    limit=None,
    rest=None,
):
    """Decodes one row.

    Args:
      mix: `(r_f, top_p)`; or an object whose `begin(width)` is called with every block and whose call gives what the
        window feeds back, `mix(model, belief, masked)`.
      refine: `(tau, max_steps, before)`: once before the first commit of a "block", or anew before every "commit";
        with a fourth, min_confidence, it also ends once every masked position is surer.
      commit: a rule of above; the default is `lowest_entropy()`. One that is `carried` observes the KL to the forward
        before across blocks; one that reads a `shadow` finds the belief's.
      stop: `(tau, max_entropy, min_confidence)`, the guards may be None.
      cache: `("prefix" or "dual", refresh_every or None)`; or one of `twin_caches`, which gives the logits itself.
      end_ids: tokens that end the row once nothing before them is masked; what is left becomes the first of them.
      canvas: tokens that are given, -1 where it is open.
      rest: `rest(logits [G, V], forwards)` says that all that is masked, in later blocks too, takes its token.
      limit: forwards after which the row ends; a rule that also reopens, `(chosen, reopened)`, needs one.

    Returns:
      tokens `[G]`; after each of n forwards: canvases `[n, G]` (mask id where masked), kl `[n]`, phase `[n]` (True: it
      began in commit), entropy `[n, W]`, nucleus `[n, W]` sizes, logits `[n, G, V]`; forwards, refine_forwards,
      stop_reason.
    """
    P, G, W = len(prompt), gen_length, block_length or gen_length
    commit = commit or lowest_entropy()
    e_mask = model.table[model.mask_id]
    V = len(model.table)
    canvas = np.full(G, -1) if canvas is None else canvas
    masked = canvas < 0
    canvas = np.where(masked, model.mask_id, canvas)
    out = SimpleNamespace(canvases=[], kl=[], phase=[], entropy=[], nucleus=[], logits=[])
    out.refine_forwards, out.stop_reason = 0, None

    for start in range(0, G, W):
        window = np.arange(start, start + W)
        soft = np.tile(e_mask, (W, 1))
        in_commit, previous = refine is None, None
        age = 0  # forwards of this block
        for rule in (commit, mix):
            if hasattr(rule, "begin"):
                rule.begin(W)
        commits, quiet = 0, 0  # forwards that committed, and forwards since the last of them
        while masked[window].any() and len(out.kl) != limit:
            # 1. Input embeddings.
            x = np.concatenate([model.table[prompt], np.where(masked[:, None], e_mask, model.table[canvas])])
            for i in window[masked[window]]:
                x[P + i] = soft[i - start]
            # 2. Logits of the window.
            region = ()
            if cache is None:
                logits = model.logits(x)
            elif callable(cache):
                logits = cache(
                    model, x, SimpleNamespace(P=P, masked=masked, window=window, age=age, forwards=len(out.kl))
                )
            elif age == 0 or (cache[1] and age % cache[1] == 0):
                logits, kept = model.forward(x)
            else:
                place = np.arange(P + G)
                fresh = (place >= P + start) & ((cache[0] == "prefix") | (place < P + start + W))
                region = kept, fresh
                logits, _ = model.forward(x, *region)
            known = out.logits and (age > 0 or not isinstance(cache, tuple))  # these do not reach the next block
            age += 1
            if hasattr(commit, "shadow"):
                shadow = model.shadows(x, P + start, W, *region)
                if suppress_mask:
                    shadow[:, model.mask_id] = -np.inf
            if cfg_scale:
                x[:P] = e_mask
                unconditional = model.logits(x)
                logits = unconditional + (cfg_scale + 1) * (logits - unconditional)
            if suppress_mask:
                logits[:, model.mask_id] = -np.inf
            before = softmax(out.logits[-1])[window] if known else None
            out.logits.append(logits[P:])
            logits = logits[P + window]
            # 3. Beliefs.
            p = softmax(logits)
            entropy = np.array([entropy_of(row) for row in p])
            belief = SimpleNamespace(logits=logits, probs=p, entropy=entropy, conf=p.max(axis=-1))
            belief.before = before
            if hasattr(commit, "shadow"):
                belief.shadow = softmax(shadow)[np.arange(W), canvas[window]]
            # 4. Divergence from the previous belief.
            kl = np.inf
            belief.kl = np.full(W, np.inf)  # on a block's first forward
            if previous is not None:
                scope = np.ones(W, bool) if divergence[1] == "block" else masked[window]
                reduce = {"mean": np.mean, "sum": np.sum, "max": np.max}[divergence[0]]
                belief.kl = np.array([kl_of(p[i], previous[i]) for i in range(W)])
                kl = reduce(belief.kl[scope])
            previous = p
            out.kl.append(kl)
            out.phase.append(in_commit)
            out.entropy.append(entropy)
            # 5. Refine until settled; the forward that settles commits.
            quiet += 1
            if hasattr(commit, "observe"):
                if hasattr(commit, "carried") and before is not None:
                    belief.kl = np.array([kl_of(p[i], before[i]) for i in range(W)])
                commit.observe(belief.kl)
            if not in_commit:
                tau, max_steps, _, *sure = refine
                in_commit = kl < tau or quiet == max_steps
                in_commit |= bool(sure) and bool(np.all(belief.conf[masked[window]] > sure[0]))
            out.refine_forwards += not out.phase[-1]
            # 6. Commit: everything once the beliefs stand still after a commit, else what the rule chooses.
            if rest is not None and rest(out.logits[-1], len(out.kl)):
                canvas[masked] = out.logits[-1].argmax(axis=-1)[masked]
                masked[:] = False
                out.stop_reason = "settled"
            open_ = masked[window]
            if stop is not None and commits > 0 and quiet == 1 and settled(kl, belief, open_, *stop):
                chosen = open_
                out.stop_reason = "settled"
            elif in_commit:
                chosen = commit(belief, open_, commits)
            else:
                chosen = np.zeros(W, bool)
            chosen, reopened = chosen if isinstance(chosen, tuple) else (chosen, np.zeros(W, bool))
            canvas[window[chosen]] = p.argmax(axis=-1)[chosen]
            masked[window[chosen]] = False
            canvas[window[reopened]], masked[window[reopened]] = model.mask_id, True
            if in_commit:
                commits, quiet = commits + 1, 0
                in_commit = refine is None or refine[2] == "block"
            # 7. What is still masked feeds its belief back.
            sizes = np.zeros(W, int)
            if callable(mix):
                soft = mix(model, belief, open_)
            for i in range(W) if isinstance(mix, tuple) and min(mix) > 0 else ():
                r_f, top_p = mix
                ids = nucleus_of(p[i], top_p)
                alpha = r_f * (1 - entropy[i] / np.log(V))
                mean = (p[i, ids] / p[i, ids].sum()) @ model.table[ids]
                soft[i] = (1 - alpha) * e_mask + alpha * mean  # read at step 1 only where still masked
                sizes[i] = len(ids)
            out.nucleus.append(sizes)
            # An end-of-text token with nothing masked before it: the rest is end-of-text.
            ends = [i for i in range(G) if canvas[i] in end_ids and not masked[: i + 1].any()]
            if masked.any() and ends:
                canvas[masked], masked[:] = end_ids[0], False
                out.stop_reason = "end_of_text"
            out.canvases.append(np.where(masked, model.mask_id, canvas))

    out.tokens, out.forwards = canvas, len(out.kl)
    out.stop_reason = "step_limit" if masked.any() else out.stop_reason or "finished"
    for name in ("canvases", "kl", "phase", "entropy", "nucleus", "logits"):
        setattr(out, name, np.array(getattr(out, name)))
    return out


def settled(kl, belief, masked, tau, max_entropy=None, min_confidence=None):
    """Eq. 6, and every masked position within the guards."""
    sure = max_entropy is None or belief.entropy[masked].max() < max_entropy
    sure &= min_confidence is None or belief.conf[masked].min() > min_confidence
    return kl < tau and sure

"""DAEDAL in plain NumPy, float64, one row: stage by stage as its specification tells it, beside `twin`.

With a mixture and a refinement, which the reference does not have: an insertion leaves nothing of what was known of
places, so that soft embeddings and the belief before are as at a block's start. Axes: those of `twin`.
"""

from types import SimpleNamespace

import numpy as np
import twin
from twin_model import softmax


def end_confidence(logits, eos, check):
    """The probabilities of the last `check` positions whose likeliest token is the end, over `check`."""
    found = [p[eos] for p in softmax(logits)[::-1] if p.argmax() == eos]
    return sum(found[:check]) / check


def decode(model, prompt, length, *, most, block_length, commit, mix=None, refine=None):
    """Decodes one row whose canvas may become `most` long; length: the settings of `DAEDAL`.

    Returns:
      canvases, after each forward, of their own lengths; tokens, forwards, inserted (how often), grown.
    """
    s, e_mask, V = SimpleNamespace(**length), model.table[model.mask_id], len(model.table)
    out = SimpleNamespace(canvases=[], forwards=0, inserted=0, grown=0)

    def ask(canvas, masked, soft=(), start=0):
        x = np.concatenate([model.table[prompt], np.where(masked[:, None], e_mask, model.table[canvas])])
        for i, e in enumerate(soft):
            if masked[start + i]:
                x[len(prompt) + start + i] = e
        logits = model.logits(x)[len(prompt) :]
        logits[:, model.mask_id] = -np.inf
        out.forwards += 1
        return logits

    def keep(canvas, masked):
        out.canvases.append(np.where(masked, model.mask_id, canvas))

    n = min(s.initial, most)
    while True:
        canvas, masked = np.full(n, model.mask_id), np.ones(n, bool)
        e = end_confidence(ask(canvas, masked), s.eos, s.eos_check)
        if e >= s.eos_conf or n >= most:
            break
        n, out.grown = min(n + s.factor, most), out.grown + 1
        keep(np.full(n, model.mask_id), np.ones(n, bool))
    tail = min(n + s.eos_check // 2, most) - n
    canvas = np.concatenate([canvas, np.full(tail, s.eos)])
    masked = np.concatenate([masked, np.zeros(tail, bool)])
    keep(canvas, masked)

    for start in range(0, most, block_length):
        in_commit, previous, commits, quiet = refine is None, None, 0, 0
        soft = [e_mask] * block_length
        while masked[start : start + block_length].any():
            open_ = masked[start : start + block_length]
            logits = ask(canvas, masked, soft[: len(open_)], start)
            e = end_confidence(logits, s.eos, s.eos_check)
            logits = logits[start : start + block_length]
            p = softmax(logits)
            belief = SimpleNamespace(
                logits=logits, probs=p, conf=p.max(-1), entropy=np.array(list(map(twin.entropy_of, p)))
            )
            kl = np.inf if previous is None else np.mean([twin.kl_of(*pair) for pair in zip(p, previous, strict=True)])
            previous, quiet = p, quiet + 1
            in_commit = in_commit or kl < refine[0] or quiet == refine[1]
            if in_commit:
                chosen = commit(belief, open_, commits)
                commits, quiet = commits + 1, 0
                canvas[start : start + len(open_)][chosen] = p.argmax(-1)[chosen]
                masked[start : start + len(open_)][chosen] = False
            for i in range(len(open_)) if mix else ():
                ids = twin.nucleus_of(p[i], mix[1])
                alpha = mix[0] * (1 - belief.entropy[i] / np.log(V))
                soft[i] = (1 - alpha) * e_mask + alpha * (p[i, ids] / p[i, ids].sum()) @ model.table[ids]
            doubt = np.where(masked[start : start + len(open_)], belief.conf, np.inf)
            if in_commit and chosen.any() and e < s.eos_expand and len(canvas) < most and doubt.min() < s.low:
                at, new = start + doubt.argmin(), np.full(s.factor, model.mask_id)
                canvas = np.concatenate([canvas[:at], new, canvas[at + 1 :]])[:most]
                masked = np.concatenate([masked[:at], new > 0, masked[at + 1 :]])[:most]
                soft, previous, commits, quiet = [e_mask] * block_length, None, 0, 0
                out.inserted += 1
            keep(canvas, masked)
    out.tokens = canvas
    return out

"""`DecodeConfig`: which part answers each question of a decode. Every rival decoder is a value of it."""

import dataclasses

from lrd_jax.decoding.parts.cache.region import Cache
from lrd_jax.decoding.parts.commit.basic import CommitRule, Dream, LowestEntropy, Scheduled, Threshold
from lrd_jax.decoding.parts.divergence import Divergence
from lrd_jax.decoding.parts.mix import Mix
from lrd_jax.decoding.parts.refine import Refine
from lrd_jax.decoding.parts.stop import Stop
from lrd_jax.decoding.setting import check_count, check_range, setting, static


@setting
class DecodeConfig:
    """One decoder. Numbers are traced and lengths, counts and rules are structure, see `lrd_jax.decoding.setting`.

    Attributes:
      gen_length: G, positions to generate.
      block_length: W, the active window; blocks are decoded left to right. None: one block of G.
      mix: what a masked position feeds back; None: nothing, [MASK].
      refine: how long to think before committing; None: not at all.
      commit: which positions become tokens.
      stop: when the rest of a block is decided; None: never.
      divergence: how `refine` and `stop` measure change.
      temperature: of the tokens' draw; beliefs are never scaled by it, and 0 takes the argmax.
      top_p, top_k: Dream's filters on the draw; None: off.
      cfg_scale: classifier-free guidance against the prompt replaced by [MASK], un + (s + 1) (cond - un); a step then
        costs two forwards. None: off.
      cache: what a forward recomputes; None: everything.
      suppress_mask: the [MASK] logit is -inf.
      logits_eos_inf: the end-of-text logit is -inf (LLaDA's HumanEval setting).
      confidence_eos_eot_inf: positions that would become end-of-text or end-of-turn are committed last: their
        confidence is 0, and confidences count neither token.
      end_of_text: a row ends when a committed end token has no masked position before it; what is left becomes
        end-of-text.
      max_forwards: a row ends after so many steps; what is still masked holds the mask id. None: no limit.
      trace: record what every step saw, see `Trace`.
      logit_chunk: positions of the window whose logits exist at a time. The whole window: the previous belief is kept
        as logits, which is fastest. Fewer: it is computed again from hidden states, one more head a step, and no array
        of window x vocabulary exists. None: by size, see `lrd_jax.decoding.reading.chunk_of`.
    """

    gen_length: int = static()
    _: dataclasses.KW_ONLY
    block_length: int | None = static(None)
    mix: Mix | None = None
    refine: Refine | None = None
    commit: CommitRule = LowestEntropy()
    stop: Stop | None = None
    divergence: Divergence = Divergence()
    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = static(None)
    cfg_scale: float | None = None
    cache: Cache | None = None
    suppress_mask: bool = static(True)
    logits_eos_inf: bool = static(False)
    confidence_eos_eot_inf: bool = static(False)
    end_of_text: bool = static(False)
    max_forwards: int | None = static(None)
    trace: bool = static(False)
    logit_chunk: int | None = static(None)

    def __post_init__(self):
        check_count(self, "gen_length")
        check_count(self, "block_length")
        check_count(self, "max_forwards")
        check_count(self, "top_k")
        check_count(self, "logit_chunk")
        check_range(self, "temperature", 0)
        check_range(self, "cfg_scale", 0)
        check_range(self, "top_p", 0, 1, open_low=True)
        for field, kind in (("mix", Mix), ("refine", Refine), ("stop", Stop), ("cache", Cache)):
            _check_kind(self, field, kind, optional=True)
        _check_kind(self, "commit", CommitRule)
        _check_kind(self, "divergence", Divergence)
        if self.gen_length % self.window:
            raise ValueError(
                f"DecodeConfig.gen_length={self.gen_length} must be a multiple of block_length={self.block_length}"
            )
        if self.cache is not None and self.cfg_scale is not None:
            raise ValueError(
                f"DecodeConfig.cache={self.cache!r} and cfg_scale={self.cfg_scale!r} exclude each other: the forward "
                "without the prompt would need a cache of its own; leave one of them out"
            )
        if isinstance(self.commit, CommitRule):
            self.commit.check_canvas(self.gen_length, self.window)

    @property
    def window(self) -> int:
        """W, positions of the active window."""
        return self.block_length or self.gen_length

    @property
    def num_blocks(self) -> int:
        return self.gen_length // self.window

    @property
    def measures_divergence(self) -> bool:
        """Whether a step needs the previous belief."""
        return self.refine is not None or self.stop is not None or self.trace or self.commit.needs_kl

    @property
    def step_limit(self) -> int:
        """Most steps that a row can take; the length of its trace."""
        turns = self.commit.max_turns(self.gen_length, self.window)
        limit = turns
        if self.refine is not None:
            thoughts = self.num_blocks if self.refine.before == "block" else turns
            limit = turns + thoughts * (self.refine.max_steps - 1)
        return min(limit, self.max_forwards or limit)

    def replace(self, **changes) -> "DecodeConfig":
        """A copy with some fields changed, validated anew."""
        return dataclasses.replace(self, **changes)

    @classmethod
    def paper(cls, gen_length: int = 256, **changes) -> "DecodeConfig":
        """LRD with the paper's literal settings: no guard on the stop, so beliefs that stand still end a block."""
        return cls(gen_length, **{"mix": Mix(), "refine": Refine(), "stop": Stop(), **changes})

    @classmethod
    def lrd(cls, gen_length: int = 256, **changes) -> "DecodeConfig":
        """Latent Refinement Decoding as shipped: the paper's phases with a guarded stop, an end-of-text stop, and
        commits of every position that is sure, see docs/evaluation.md."""
        defaults = {
            "mix": Mix(),
            "refine": Refine(),
            "commit": LowestEntropy(threshold=0.9),
            "stop": Stop(max_entropy=0.2),
            "end_of_text": True,
        }
        return cls(gen_length, **{**defaults, **changes})

    @classmethod
    def llada(cls, gen_length: int = 256, *, steps: int | None = None, **changes) -> "DecodeConfig":
        """LLaDA's own sampler (`generate`, low-confidence remasking), hard masks."""
        return cls(gen_length, **{"commit": Scheduled(steps), **changes})

    @classmethod
    def dream(
        cls, gen_length: int = 256, *, alg: str = "entropy", steps: int | None = None, **changes
    ) -> "DecodeConfig":
        """Dream's own sampler (`diffusion_generate`), hard masks."""
        return cls(gen_length, **{"commit": Dream(alg, steps), **changes})

    @classmethod
    def plain(cls, gen_length: int = 256, *, per_step: int = 1, **changes) -> "DecodeConfig":
        """The paper's baseline: hard masks, the `per_step` positions of lowest entropy each forward."""
        return cls(gen_length, **{"commit": LowestEntropy(per_step), **changes})

    @classmethod
    def fast(cls, gen_length: int = 256, *, threshold: float = 0.9, **changes) -> "DecodeConfig":
        """Fast-dLLM's parallel commits: hard masks, every position at least as sure as `threshold`."""
        return cls(gen_length, **{"commit": Threshold(threshold), **changes})


def _check_kind(config: DecodeConfig, field: str, kind: type, *, optional: bool = False) -> None:
    """Rejects a value of another type, but lets the placeholders pass that pytree utilities put into a config."""
    value = getattr(config, field)
    wrong = value is None if not optional else False
    if wrong or isinstance(value, bool | int | float | str | dict | list | tuple | type):
        or_none = " or None" if optional else ""
        raise ValueError(f"DecodeConfig.{field}={value!r} must be a {kind.__name__}{or_none}")

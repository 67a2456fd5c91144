"""`DecodeConfig`: which part answers each question of a decode. Every rival decoder is a value of it."""

import dataclasses
import math
from typing import Any

import numpy as np
from jax.core import Tracer

from lrd_jax.decoding.parts.cache.cache import Cache, NoCache
from lrd_jax.decoding.parts.commit.basic import LowestEntropy, Threshold
from lrd_jax.decoding.parts.commit.dilated import DUS
from lrd_jax.decoding.parts.commit.parallel import KLASS
from lrd_jax.decoding.parts.commit.reference import Dream, Scheduled
from lrd_jax.decoding.parts.commit.rule import CommitRule
from lrd_jax.decoding.parts.commit.settling import All
from lrd_jax.decoding.parts.commit.wide import WINO, Capped
from lrd_jax.decoding.parts.divergence import Divergence
from lrd_jax.decoding.parts.draw import Draw
from lrd_jax.decoding.parts.length import DAEDAL, AsAsked, LengthRule
from lrd_jax.decoding.parts.mix import Mix, MixRule
from lrd_jax.decoding.parts.part import Part
from lrd_jax.decoding.parts.prophet import Prophet
from lrd_jax.decoding.parts.refine import NoRefine, Refine
from lrd_jax.decoding.parts.remix import ReMix
from lrd_jax.decoding.parts.stop import NoStop, Stop, StopRule
from lrd_jax.decoding.setting import Number, count, flag, number, part, setting
from lrd_jax.errors import Refused


@setting
class DecodeConfig:
    """One decoder. Numbers are traced and lengths, counts and rules are structure, see `lrd_jax.decoding.setting`.

    Every real number of it, in its parts too, may be an array `[B]`: one a row.

    Attributes:
      gen_length: G, positions to generate; with a `length`, the most that there can be.
      block_length: W, the active window; blocks are decoded left to right. None: one block of G.
      mix: what a masked position feeds back; None: nothing, [MASK].
      refine: how long to think before committing; None: not at all.
      commit: which positions become tokens.
      stop: when the rest of a block is decided; None: never.
      divergence: how `refine` and `stop` measure change.
      draw: which token a position proposes: the argmax, or one drawn at a temperature.
      cache: what a forward recomputes; None: everything.
      length: how long a row's canvas is; None: as asked.
      cfg_scale: classifier-free guidance against the prompt replaced by [MASK], un + (s + 1) (cond - un); a step then
        costs two forwards. None: off.
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

    gen_length: int = count(high=math.inf)
    _: dataclasses.KW_ONLY
    block_length: int | None = count(default=None, high=math.inf)
    mix: MixRule | None = part(MixRule, default=None)
    refine: Refine | None = part(Refine, default=None)
    commit: CommitRule = part(CommitRule, default=LowestEntropy())
    stop: StopRule | None = part(StopRule, default=None)
    divergence: Divergence = part(Divergence, default=Divergence())
    draw: Draw = part(Draw, default=Draw())
    cache: Cache | None = part(Cache, default=None)
    length: LengthRule | None = part(LengthRule, default=None)
    cfg_scale: Number | None = number(default=None)
    suppress_mask: bool = flag(default=True)
    logits_eos_inf: bool = flag(default=False)
    confidence_eos_eot_inf: bool = flag(default=False)
    end_of_text: bool = flag(default=False)
    max_forwards: int | None = count(default=None)
    trace: bool = flag(default=False)
    logit_chunk: int | None = count(default=None)

    def __post_init__(self):
        if self.gen_length % self.window:
            raise Refused(
                f"DecodeConfig.gen_length={self.gen_length} must be a multiple of block_length={self.block_length}"
            )
        if self.cache is not None and self.cfg_scale is not None:
            raise Refused(
                f"DecodeConfig.cache={self.cache!r} and cfg_scale={self.cfg_scale!r} exclude each other: the forward "
                "without the prompt would need a cache of its own; leave one of them out"
            )
        if self.cache is not None and self.length is not None:
            raise Refused(
                f"DecodeConfig.cache={self.cache!r} and length={self.length!r} exclude each other: what a cache keeps "
                "of a position is wrong once the canvas has grown; leave one of them out"
            )
        if self.reads_canvas and not self.asking.reaches_canvas:
            asks = [f"{name}={part!r}" for name, part in self.remembering().items() if "canvas" in part.reads]
            raise Refused(
                f"DecodeConfig.cache={self.cache!r} computes a part of the canvas, and {', '.join(asks)} reads all of "
                "it on every forward; leave one of them out"
            )
        if "shadow" in self.reads and not self.asking.feeds_shadows:
            raise Refused(
                f"DecodeConfig.cache={self.cache!r} feeds positions of the canvas only, and commit={self.commit!r} "
                "asks for shadows of them on every forward; leave one of them out"
            )
        if self.length is not None and self.commit.idles:
            raise Refused(
                f"DecodeConfig.commit={self.commit!r} plans its forwards for a canvas that stays, and some of them "
                f"commit nothing; length={self.length!r} changes the canvas: take another rule, or leave length out"
            )
        self.asking.check_beside(self)
        self.commit.check_canvas(self.gen_length, self.num_blocks)
        self.stopping.check_canvas(self.gen_length)

    @property
    def window(self) -> int:
        """W, positions of the active window."""
        return self.block_length or self.gen_length

    @property
    def num_blocks(self) -> int:
        return self.gen_length // self.window

    @property
    def refining(self) -> Refine | NoRefine:
        """`refine`, or the part that never refines."""
        return NoRefine() if self.refine is None else self.refine

    @property
    def stopping(self) -> StopRule:
        """`stop`, or the part that never stops."""
        return NoStop() if self.stop is None else self.stop

    @property
    def mixing(self) -> MixRule:
        """`mix`, where there is one."""
        assert self.mix is not None, "nothing is mixed"
        return self.mix

    @property
    def asking(self) -> Cache:
        """`cache`, or the part that recomputes everything."""
        return NoCache() if self.cache is None else self.cache

    @property
    def sizing(self) -> LengthRule:
        """`length`, or the part that leaves a row as it was asked."""
        return AsAsked() if self.length is None else self.length

    @property
    def reads(self) -> frozenset[str]:
        """What the parts ask of a reading beyond the common sight, see `Part.reads`."""
        asked = [part.reads for part in (*self.remembering().values(), self.sizing)]
        return frozenset({"kl"} if self.trace else ()).union(*asked)

    @property
    def reads_canvas(self) -> bool:
        """Whether a forward is read over the whole canvas, not over the window alone."""
        return "canvas" in self.reads

    @property
    def reach(self) -> int:
        """R, positions that a forward is read at."""
        return self.gen_length if self.reads_canvas else self.window

    @property
    def compares(self) -> bool:
        """Whether a forward's beliefs are compared with those of the one before, which are then kept."""
        return bool({"kl", "js"} & self.reads)

    @property
    def carries(self) -> bool:
        """Whether a block's first forward is compared with the last one of the block before, which must have gone so
        far: a cache that computes a part of the canvas knows nothing of the next block, which then begins anew."""
        return "carried" in self.reads and self.asking.reaches_canvas

    @property
    def asked(self) -> int:
        """Positions that a forward gives hidden states of, of which R are read."""
        return self.gen_length if self.carries else self.reach

    @property
    def step_limit(self) -> int:
        """Most steps that a row can take; the length of its trace."""
        commits = self.commit.max_commits(self.gen_length, self.window)
        commits += self.sizing.most_forwards(self.gen_length, commits)
        limit = commits + self.refining.most_forwards(self.num_blocks, commits)
        return min(limit, self.max_forwards or limit)

    @property
    def ends_by_count(self) -> bool:
        """Whether a row ends at the step limit, if nothing ended it before."""
        return self.max_forwards is not None or self.commit.reopens

    @property
    def draws(self) -> bool | None:
        """Whether a decode needs a random key; None where the temperature is traced."""
        if self.commit.draws:
            return True
        if isinstance(self.draw.temperature, Tracer):
            return None
        return bool(np.any(np.asarray(self.draw.temperature) > 0))

    def remembering(self) -> dict[str, Part]:
        """The parts that see every forward, by their question."""
        parts = {"refine": self.refining, "stop": self.stopping, "commit": self.commit}
        return parts if self.mix is None else {**parts, "mix": self.mix}

    def replace(self, **changes: Any) -> "DecodeConfig":
        """A copy with some fields changed, validated anew."""
        return dataclasses.replace(self, **changes)

    @classmethod
    def paper(cls, gen_length: int = 256, **changes: Any) -> "DecodeConfig":
        """LRD with the paper's literal settings: no guard on the stop, so beliefs that stand still end a block."""
        return cls(gen_length, **{"mix": Mix(), "refine": Refine(), "stop": Stop(), **changes})

    @classmethod
    def lrd(cls, gen_length: int = 256, **changes: Any) -> "DecodeConfig":
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
    def settle(cls, gen_length: int = 256, **changes: Any) -> "DecodeConfig":
        """Beliefs fed back in full until they settle or are sure, then everything committed at once: for models that
        were tuned through their own refinement, see docs/front.md."""
        refine = Refine(tau=0.03, min_confidence=0.8)
        defaults = {"mix": Mix(r_f=1.0), "refine": refine, "commit": All(), "end_of_text": True}
        return cls(gen_length, **{**defaults, **changes})

    @classmethod
    def llada(cls, gen_length: int = 256, *, steps: int | None = None, **changes: Any) -> "DecodeConfig":
        """LLaDA's own sampler (`generate`, low-confidence remasking), hard masks."""
        return cls(gen_length, **{"commit": Scheduled(steps), **changes})

    @classmethod
    def dream(
        cls, gen_length: int = 256, *, alg: str = "entropy", steps: int | None = None, **changes: Any
    ) -> "DecodeConfig":
        """Dream's own sampler (`diffusion_generate`), hard masks."""
        return cls(gen_length, **{"commit": Dream(alg, steps), **changes})

    @classmethod
    def plain(cls, gen_length: int = 256, *, per_step: int = 1, **changes: Any) -> "DecodeConfig":
        """The paper's baseline: hard masks, the `per_step` positions of lowest entropy each forward."""
        return cls(gen_length, **{"commit": LowestEntropy(per_step), **changes})

    @classmethod
    def prophet(
        cls, gen_length: int = 256, *, answer_start: Number | None = None, steps: int | None = None, **changes: Any
    ) -> "DecodeConfig":
        """Prophet: LLaDA's own sampler, ended once the answer, from `answer_start` on, is far ahead of its rivals."""
        return cls(gen_length, **{"commit": Scheduled(steps), "stop": Prophet(answer_start=answer_start), **changes})

    @classmethod
    def daedal(cls, gen_length: int = 2048, **changes: Any) -> "DecodeConfig":
        """DAEDAL: a canvas that grows up to `gen_length`. It begins with 64 positions, or a quarter of a shorter
        `gen_length`; blocks are of 32, or of the largest divisor of both."""
        defaults = {
            "block_length": math.gcd(gen_length, 32) if isinstance(gen_length, int) else None,
            "commit": Threshold(0.9),
            "length": DAEDAL(initial=max(1, min(64, gen_length // 4))),
        }
        return cls(gen_length, **{**defaults, **changes})

    @classmethod
    def fast(cls, gen_length: int = 256, *, threshold: float = 0.9, **changes: Any) -> "DecodeConfig":
        """Fast-dLLM's parallel commits: hard masks, every position at least as sure as `threshold`."""
        return cls(gen_length, **{"commit": Threshold(threshold), **changes})

    @classmethod
    def klass(
        cls, gen_length: int = 256, *, kl: float = 0.01, confidence: float = 0.9, **changes: Any
    ) -> "DecodeConfig":
        """KLASS's parallel commits as published: hard masks, every sure position whose belief stood still twice."""
        return cls(gen_length, **{"commit": KLASS(kl, confidence), **changes})

    @classmethod
    def dus(cls, gen_length: int = 256, *, base: int = 2, **changes: Any) -> "DecodeConfig":
        """DUS's dilated rounds: hard masks, log2 of a block's length in forwards for each block."""
        return cls(gen_length, **{"commit": DUS(base), **changes})

    @classmethod
    def wino(
        cls, gen_length: int = 256, *, threshold: float = 0.6, threshold_back: float = 0.9, **changes: Any
    ) -> "DecodeConfig":
        """WINO's wide commits, taken back where the rest of the canvas does not bear them out: hard masks."""
        return cls(gen_length, **{"commit": WINO(threshold, threshold_back), **changes})

    @classmethod
    def remix(
        cls, gen_length: int = 256, *, beta: float = 0.5, js: float = 0.3, threshold: float = 0.8, **changes: Any
    ) -> "DecodeConfig":
        """ReMix as published: half of a belief fed back until it moves too far, and wide commits."""
        return cls(gen_length, **{"mix": ReMix(beta, js), "commit": Capped(threshold), **changes})

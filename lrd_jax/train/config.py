"""What a training run is: frozen, validated configs read from one TOML file; every problem is named by its field."""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

from lrd_jax import toml
from lrd_jax.errors import Refused
from lrd_jax.tasks import TRAINABLE

MATRICES = ("q", "k", "v", "out", "gate", "up", "down")  # of a block
DTYPES = ("bfloat16", "float16", "float32")
_LARGEST_COUNT = 2**31 - 1  # steps are counted in int32


def _not_positive(config: Any, *names: str) -> list[str]:
    """Problems with numbers that must be positive and finite."""
    return [
        f"{name}={value} must be positive{' and finite' if value > 0 else ''}"
        for name in names
        if not 0 < (value := getattr(config, name)) < math.inf
    ]


def _outside_unit(config: Any, *names: str) -> list[str]:
    return [f"{n}={getattr(config, n)} must be in [0, 1]" for n in names if not 0 <= getattr(config, n) <= 1]


def _not_a_path(config: Any, *names: str) -> list[str]:
    """Problems with the names of files and folders; None is left alone."""
    texts = {name: text for name in names if (text := getattr(config, name)) is not None}
    return [f"{name}={text!r} is no name of a file" for name, text in texts.items() if not text or "\0" in text]


class _Checked:
    """A config whose fields hold what their annotations say, and of which `problems` finds nothing."""

    def __post_init__(self):
        if found := toml.type_problems(self) or self.problems():
            raise toml.Problems(found)

    def problems(self) -> list[str]:
        """What is wrong with the values, each by its field."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scratch(_Checked):
    """Sizes of a LLaDA-architecture model to train from random weights.

    Attributes:
      tokenizer: folder with tokenizer.json; None builds one from the words of the tasks that are trained on.
    """

    num_layers: int
    embed_dim: int
    mlp_dim: int
    num_heads: int
    max_length: int
    tokenizer: str | None = None

    def problems(self):
        found = _not_positive(self, "num_layers", "embed_dim", "mlp_dim", "num_heads", "max_length")
        if not found and self.embed_dim % (2 * self.num_heads):
            found.append(f"embed_dim={self.embed_dim} must be num_heads={self.num_heads} times an even head dimension")
        return found + _not_a_path(self, "tokenizer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bucket(_Checked):
    """One shape of batch, so that a short problem does not pay for a long canvas.

    Attributes:
      prompt, canvas: lengths in tokens; a pair fits if neither is exceeded.
      batch: rows.
      share: relative number of steps that take this shape.
      tasks: names of the tasks in these batches; none: those of the data.
    """

    prompt: int
    canvas: int
    batch: int
    share: float = 1.0
    tasks: tuple[str, ...] = ()

    def problems(self):
        return _not_positive(self, "prompt", "canvas", "batch", "share")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(_Checked):
    """Where prompt / answer pairs come from: a JSON-lines file, or built-in tasks made as they are needed.

    Attributes:
      jsonl: file of {"prompt": ..., "answer": ...} lines.
      tasks: names of built-in tasks, drawn evenly (a name given twice counts twice); held-out problems never are.
      chat: put every prompt into the tokenizer's chat template, to tune a model on conversations.
      buckets: the shapes of batches.
    """

    jsonl: str | None = None
    tasks: tuple[str, ...] = ()
    chat: bool = False
    buckets: tuple[Bucket, ...]

    def problems(self):
        found = _not_a_path(self, "jsonl")
        if self.jsonl and any(bucket.tasks for bucket in self.buckets):
            found.append("buckets: tasks of a bucket need data.tasks, not jsonl")
        named = (*self.tasks, *(name for bucket in self.buckets for name in bucket.tasks))
        if unknown := [name for name in named if name not in TRAINABLE]:
            found.append(f"tasks: {', '.join(unknown)} unknown; known: {', '.join(TRAINABLE)}")
        if not self.buckets:
            found.append("buckets: at least one [[data.buckets]] is needed")
        if not math.isfinite(sum(bucket.share for bucket in self.buckets)):
            found.append("buckets: the sum of their shares must be finite")
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restart(_Checked):
    """From a step on, the learning rate warms up and decays once more (SGDR, arXiv 1608.03983), to another peak."""

    step: int
    peak_lr: float

    def problems(self):
        return _not_positive(self, "step", "peak_lr")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(_Checked):
    """AdamW with linear warm-up, cosine decay to a tenth of the peak, and clipping by the global norm.

    Attributes:
      warmup_steps: of the start, and of every restart.
      restarts: in the order of their steps; each decays until the next one, the last to the end.
    """

    peak_lr: float
    warmup_steps: int = 100
    weight_decay: float = 0.1
    b2: float = 0.98
    clip_norm: float = 1.0
    restarts: tuple[Restart, ...] = ()

    def problems(self):
        found = _not_positive(self, "peak_lr", "clip_norm")
        if not 0 <= self.weight_decay < math.inf:
            found.append(f"weight_decay={self.weight_decay} must be 0 or positive, and finite")
        if not 0 <= self.b2 < 1:
            found.append(f"b2={self.b2} must be in [0, 1): at 1 the second moment never moves")
        return found

    def segments(self, steps: int) -> list[tuple[int, int, float]]:
        """First step, step after the last, and peak of every stretch between restarts of a run."""
        starts = [(0, self.peak_lr), *((restart.step, restart.peak_lr) for restart in self.restarts)]
        ends = [*(start for start, _ in starts[1:]), steps]
        return [(start, end, peak) for (start, peak), end in zip(starts, ends, strict=True)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftInputs(_Checked):
    """Training on the inputs that refinement and mixing will feed.

    Attributes:
      share: share of the rows that take part; the others see [MASK] alone.
      refinements: most forwards before the last one.
      every_depth: rows that take part run all of them, and the loss is the mean of all forwards' losses; False: each
        row runs 0 to all of them, equally often, and the loss is the last forward's.
      min_r_f, max_r_f: the feedback ratio is uniform between them, one a row.
      top_p: mass of the nucleus.
      all_masked: share of the rows whose answer is masked altogether, as decoding starts; t is 1 there.
      through: gradients flow through the beliefs that are fed back, all but the floor of the nucleus; False: what is
        fed back is given.
      remat: what the way back needs of every forward but the last is computed again: the memory of one forward in
        place of all of them, for more time. Without `through` and `every_depth` only the last is trained, and this
        changes nothing.
    """

    share: float = 1.0
    refinements: int = 2
    every_depth: bool = False
    min_r_f: float = 0.0
    max_r_f: float = 1.0
    top_p: float = 0.9
    all_masked: float = 0.0
    through: bool = False
    remat: bool = True

    def problems(self):
        found = _outside_unit(self, "share", "min_r_f", "max_r_f", "top_p", "all_masked")
        if self.min_r_f > self.max_r_f:
            found.append(f"min_r_f={self.min_r_f} must be at most max_r_f={self.max_r_f}")
        if not 1 <= self.refinements <= 16:
            found.append(f"refinements={self.refinements} must be from 1 to 16")
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora(_Checked):
    """Low-rank adapters beside the matrices of a checkpoint that stays as it is (arXiv 2106.09685).

    A matrix W becomes W + alpha / rank * A B. A and B are float32, W keeps its stored dtype, B starts at 0.

    Attributes:
      rank: of A and B, at most the smaller side of every matrix.
      matrices: of every block, by their names in `lrd_jax.models.transformer.Blocks`.
      merge: True: the trained model is written whole, W + alpha / rank * A B. False: A and B alone, in a folder that
        names its base, which `lrd_jax.load` adds them to.
    """

    rank: int = 16
    alpha: float = 16.0
    matrices: tuple[str, ...] = MATRICES
    merge: bool = True

    def problems(self):
        found = _not_positive(self, "rank", "alpha")
        if unknown := [name for name in self.matrices if name not in MATRICES]:
            found.append(f"matrices: {', '.join(map(repr, unknown))} unknown; known: {', '.join(MATRICES)}")
        elif not self.matrices or len(set(self.matrices)) < len(self.matrices):
            found.append(f"matrices={list(self.matrices)} must name each matrix once, and at least one")
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mesh(_Checked):
    """Devices along the axes of `lrd_jax.sharding`."""

    data: int = 1
    fsdp: int = 1
    tensor: int = 1

    def problems(self):
        return _not_positive(self, "data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(_Checked):
    """A whole run.

    Attributes:
      output: folder of the run: log.jsonl, checkpoints/, and the trained model in model/.
      seed: from 0 to 2^32 - 1.
      init: checkpoint to fine-tune, anything `lrd_jax.load` takes; or
      model: sizes of a new one. Exactly one of the two.
      lora: train adapters beside the matrices of `init`; None: train all of the model.
      min_mask_ratio: the mask ratio t is uniform on [min_mask_ratio, 1].
      remat_blocks: the way back computes every block again from its input: the memory of one block's activations in
        place of all, for a third more time.
      dtype: of the trained model's files; training itself is in float32, but for what `lora` freezes. Adapters that
        are written apart are float32.
      checkpoint_every, log_every: in steps.
    """

    output: str
    steps: int
    seed: int = 0
    init: str | None = None
    model: Scratch | None = None
    data: Data
    optimizer: Optimizer
    soft_inputs: SoftInputs | None = None
    lora: Lora | None = None
    mesh: Mesh = Mesh()
    min_mask_ratio: float = 1e-3
    remat_blocks: bool = False
    dtype: str = "bfloat16"
    checkpoint_every: int = 500
    log_every: int = 20

    def problems(self):
        found = _not_a_path(self, "output", "init") + _not_positive(self, "steps", "checkpoint_every", "log_every")
        if self.steps > _LARGEST_COUNT:
            found.append(f"steps={self.steps} must be at most {_LARGEST_COUNT}")
        if not 0 <= self.seed < 2**32:
            found.append(f"seed={self.seed} must be from 0 to {2**32 - 1}")
        if (self.init is None) == (self.model is None):
            found.append("set exactly one of init (a checkpoint to start from) and [model] (sizes of a new one)")
        if self.lora and self.model:
            found.append("lora: adapters need a checkpoint to stand beside: set init, not [model]")
        if (self.data.jsonl is None) == (not self.data.tasks):
            found.append("data: set exactly one of jsonl and tasks")
        if self.model and self.model.tokenizer is None and not self.data.tasks:
            found.append("model.tokenizer: a new model on jsonl data needs a folder with tokenizer.json")
        for i, bucket in enumerate(self.data.buckets):
            if bucket.batch % (self.mesh.data * self.mesh.fsdp):
                found.append(f"data.buckets[{i}].batch={bucket.batch} must divide over mesh.data * mesh.fsdp")
        if not 0 < self.min_mask_ratio < 1:
            found.append(f"min_mask_ratio={self.min_mask_ratio} must be above 0 and below 1")
        if self.dtype not in DTYPES:
            found.append(f"dtype={self.dtype!r} must be one of {', '.join(DTYPES)}")
        return found + self._schedule_problems()

    def _schedule_problems(self) -> list[str]:
        warmup = self.optimizer.warmup_steps
        if not 0 <= warmup < max(self.steps, 1):
            return [f"optimizer.warmup_steps={warmup} must be from 0 to below steps"]
        return [
            f"optimizer.restarts: from step {start} to {end} there must be more than the {warmup} of the warm-up"
            for start, end, _ in self.optimizer.segments(self.steps)
            if end - start <= warmup
        ]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def read_config(path: str | Path) -> TrainConfig:
    """Reads a TOML file.

    Raises:
      ValueError: not TOML, unknown or missing fields, wrong types or values; the message names file and fields.
    """
    if not isinstance(path, str | os.PathLike):
        raise Refused(f"path={path!r:.80} is no path; give that of a TOML file")
    try:
        return toml.read(TrainConfig, Path(path))
    except FileNotFoundError:
        raise Refused(f"{path}: no such file; give a TOML file such as recipes/lrd-tiny.toml") from None

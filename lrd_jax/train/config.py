"""What a training run is: frozen, validated configs read from one TOML file; every problem is named by its field."""

import dataclasses
import json
import tomllib
import types
import typing
from pathlib import Path
from typing import Any

from lrd_jax.tasks import TRAINABLE

DTYPES = ("bfloat16", "float16", "float32")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scratch:
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bucket:
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW with linear warm-up, cosine decay to a tenth of the peak, and clipping by the global norm."""

    peak_lr: float
    warmup_steps: int = 100
    weight_decay: float = 0.1
    b2: float = 0.98
    clip_norm: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftInputs:
    """Training on the inputs that refinement and mixing will feed.

    Attributes:
      share: share of the rows that take part; each runs 0, 1 or 2 forwards, equally often.
      max_r_f: the feedback ratio is uniform on [0, max_r_f], one a row.
      top_p: mass of the nucleus.
    """

    share: float = 1.0
    max_r_f: float = 1.0
    top_p: float = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mesh:
    """Devices along the axes of `lrd_jax.sharding`."""

    data: int = 1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole run.

    Attributes:
      output: folder of the run: log.jsonl, checkpoints/, and the trained model in model/.
      init: checkpoint to fine-tune, anything `lrd_jax.load` takes; or
      model: sizes of a new one. Exactly one of the two.
      min_mask_ratio: the mask ratio t is uniform on [min_mask_ratio, 1].
      dtype: of the trained model's files; training itself is in float32.
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
    mesh: Mesh = Mesh()
    min_mask_ratio: float = 1e-3
    dtype: str = "bfloat16"
    checkpoint_every: int = 500
    log_every: int = 20

    def __post_init__(self):
        problems = []
        if (self.init is None) == (self.model is None):
            problems.append("set exactly one of init (a checkpoint to start from) and [model] (sizes of a new one)")
        if (self.data.jsonl is None) == (not self.data.tasks):
            problems.append("data: set exactly one of jsonl and tasks")
        if self.data.jsonl and any(bucket.tasks for bucket in self.data.buckets):
            problems.append("data.buckets: tasks of a bucket need data.tasks, not jsonl")
        named = (*self.data.tasks, *(name for bucket in self.data.buckets for name in bucket.tasks))
        if unknown := [name for name in named if name not in TRAINABLE]:
            problems.append(f"data.tasks: {', '.join(unknown)} unknown; known: {', '.join(TRAINABLE)}")
        if self.model and self.model.tokenizer is None and not self.data.tasks:
            problems.append("model.tokenizer: a new model on jsonl data needs a folder with tokenizer.json")
        if not self.data.buckets:
            problems.append("data.buckets: at least one [[data.buckets]] is needed")
        problems += _not_positive(self, "steps", "checkpoint_every", "log_every")
        problems += _not_positive(self.optimizer, "peak_lr", "clip_norm", prefix="optimizer.")
        problems += _not_positive(self.mesh, "data", "fsdp", "tensor", prefix="mesh.")
        if self.model:
            sizes = ("num_layers", "embed_dim", "mlp_dim", "num_heads", "max_length")
            problems += _not_positive(self.model, *sizes, prefix="model.")
        for i, bucket in enumerate(self.data.buckets):
            problems += _not_positive(bucket, "prompt", "canvas", "batch", "share", prefix=f"data.buckets[{i}].")
            if bucket.batch % (self.mesh.data * self.mesh.fsdp):
                problems.append(f"data.buckets[{i}].batch={bucket.batch} must divide over mesh.data * mesh.fsdp")
        if not 0 < self.min_mask_ratio < 1:
            problems.append(f"min_mask_ratio={self.min_mask_ratio} must be above 0 and below 1")
        if self.dtype not in DTYPES:
            problems.append(f"dtype={self.dtype!r} must be one of {', '.join(DTYPES)}")
        problems += _outside_unit(self.optimizer, "b2", prefix="optimizer.")
        if self.soft_inputs:
            problems += _outside_unit(self.soft_inputs, "share", "max_r_f", "top_p", prefix="soft_inputs.")
        if not 0 <= self.optimizer.warmup_steps < max(self.steps, 1):
            problems.append(f"optimizer.warmup_steps={self.optimizer.warmup_steps} must be from 0 to below steps")
        if problems:
            raise ValueError("; ".join(problems))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def read_config(path: str | Path) -> TrainConfig:
    """Reads a TOML file.

    Raises:
      ValueError: not TOML, unknown or missing fields, wrong types or values; the message names file and fields.
    """
    try:
        return _build(TrainConfig, tomllib.loads(Path(path).read_text()), "")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; give a TOML file such as recipes/lrd-tiny.toml") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _build(kind: type, table: Any, where: str) -> Any:
    """A dataclass from a parsed table; problems of one level are reported together."""
    if not isinstance(table, dict):
        raise ValueError(f"{where or 'the file'} must be a table, got {table!r}")
    types_ = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    prefix = f"{where}." if where else ""
    problems = [f"{prefix}{name} is unknown; known: {', '.join(fields)}" for name in table if name not in fields]
    problems += [
        f"{prefix}{name} is missing"
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and name not in table
    ]
    if problems:
        raise ValueError("; ".join(problems))
    return kind(**{name: _value(types_[name], value, prefix + name) for name, value in table.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    if isinstance(kind, types.UnionType):
        kind = next(option for option in typing.get_args(kind) if option is not types.NoneType)
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, where)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} must be a list, got {value!r}")
        return tuple(_value(typing.get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{where} must be of type {kind.__name__}, got {value!r}")
    return value


def _not_positive(config: Any, *names: str, prefix: str = "") -> list[str]:
    return [f"{prefix}{n}={getattr(config, n)} must be positive" for n in names if not getattr(config, n) > 0]


def _outside_unit(config: Any, *names: str, prefix: str = "") -> list[str]:
    return [f"{prefix}{n}={getattr(config, n)} must be in [0, 1]" for n in names if not 0 <= getattr(config, n) <= 1]

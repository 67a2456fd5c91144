"""Decoders by name, what is changed in them, and the paper's settings for each checkpoint and benchmark as data."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lrd_jax.checkpoint import find_model
from lrd_jax.convert.folders import DECODER_FILE
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.parts.cache.dkv import DKVCache
from lrd_jax.decoding.parts.cache.dllm import DLLMCache
from lrd_jax.decoding.parts.cache.sparse import SparseCache
from lrd_jax.decoding.setting import specs
from lrd_jax.decoding.text_form import changed, from_table
from lrd_jax.errors import Refused
from lrd_jax.options import DecoderOptions, Yours
from lrd_jax.preset_files import SUFFIXES, PresetFile, is_preset_file, read_preset
from lrd_jax.published import published

# The field's caches as published, beside LLaDA's own sampler: dLLM-Cache as for LLaDA-8B-Instruct on GSM8K.
_CACHES = {
    "dllm-cache": DLLMCache(prompt_every=50, response_every=7, rho=0.25),
    "sparse-dllm": SparseCache(keep_ratio=0.5, kernel_size=3),
    "dkv-cache": DKVCache(refresh_every=8),
}

DECODERS: dict[str, Callable[[int], DecodeConfig]] = {
    "lrd": DecodeConfig.lrd,
    "paper": DecodeConfig.paper,
    "plain": DecodeConfig.plain,
    "fast": DecodeConfig.fast,
    "llada": DecodeConfig.llada,
    "dream": DecodeConfig.dream,
    "settle": DecodeConfig.settle,
    "klass": DecodeConfig.klass,
    "dus": DecodeConfig.dus,
    "wino": DecodeConfig.wino,
    "remix": DecodeConfig.remix,
    "prophet": DecodeConfig.prophet,
    "daedal": DecodeConfig.daedal,
    **{name: functools.partial(DecodeConfig.llada, cache=cache) for name, cache in _CACHES.items()},
}

PAPER_CHECKPOINTS = ("llada-8b-base", "llada-8b-instruct", "llada-1.5", "dream-7b-base", "dream-7b-instruct")
BENCHMARKS = ("humaneval", "mbpp", "gsm8k", "math500")
PAPER_GEN_LENGTHS = (256, 512, 1024)

# Active window per checkpoint and benchmark (App. C): semi-autoregressive where the checkpoint's own evaluation is, and
# with that evaluation's lengths; every other pair decodes the whole canvas as one block.
PAPER_BLOCK_LENGTHS = {
    "llada-8b-instruct": {"humaneval": 32, "mbpp": 32, "gsm8k": 8, "math500": 64},
    "llada-1.5": {"humaneval": 32, "mbpp": 32, "gsm8k": 16, "math500": 128},
}


@dataclasses.dataclass(frozen=True)
class Short:
    """A short name of fields.

    Attributes:
      fields: their dotted names; those of a decoder that has some of them are meant.
      changes: what they change, for who asks a decoder that has none of them.
      presets: that have them.
    """

    fields: tuple[str, ...]
    changes: str = ""
    presets: str = ""


SHORT_NAMES = {
    "r_f": Short(("mix.r_f",), "the mixing", "lrd, paper or settle"),
    "tau": Short(("refine.tau", "stop.tau"), "the refinement and the stop", "lrd, paper or settle"),
    "threshold": Short(
        ("commit.threshold",), "a commit rule that has one", "lrd, paper, plain, fast, wino, remix or daedal"
    ),
    "steps": Short(("commit.steps",), "a commit rule that plans its steps", "llada, dream or prophet"),
    "temperature": Short(("draw.temperature",)),
    "top_p": Short(("draw.top_p",)),
    "top_k": Short(("draw.top_k",)),
}


def preset(name: str, gen_length: int, *, model: str | Path | None = None, **changes: Any) -> DecodeConfig:
    """The decoder called `name`: a key of `DECODERS`, "paper/CHECKPOINT/BENCHMARK", what else was published by
    benchmark (`lrd_jax.published`), or a preset file (.json, .toml).

        preset("lrd", 64, cache="dual", threshold=0.8)
        preset("lrd", 64, **{"cache": "dual", "cache.refresh_every": 8})

    Args:
      gen_length: G, positions to generate.
      model: as `lrd_jax.load` takes it. A model that was tuned through its own refinement carries its `lrd` in a preset
        file of its folder, decoder.toml: for it, "lrd" is that. None, and any other model: what suits them all.
      changes: fields to set otherwise, by dotted name, see `lrd_jax.decoding.text_form.changed`, or by a short one,
        a key of `SHORT_NAMES`.

    Raises:
      ValueError: an unknown name, a file that cannot be read as a preset, changes that name what the decoder does not
        have, or values that `DecodeConfig` refuses.
    """
    if not isinstance(name, str):
        raise Refused(f"preset {name!r} must be a name, one of {', '.join(DECODERS)}, or the name of a file")
    if name == "lrd":
        name = _own(model) or name
    if not is_preset_file(name):
        return _adjusted(*_named(name, gen_length), changes)
    file = read_preset(name)
    try:
        found = _in_file(file, gen_length)
        if not changes:
            return _adjusted(*found, changes)
    except ValueError as error:
        raise Refused(f"preset file {name}: {error}") from None
    return _adjusted(*found, changes)


def decoder(options: DecoderOptions, **defaults: Any) -> DecodeConfig:
    """The decoder that a command's options name, for their model if they have one.

    Args:
      defaults: changes of the preset that those of the options go before.

    Raises:
      ValueError: see `preset`.
    """
    model = getattr(options, "model", None)
    return preset(options.preset, options.gen_length, model=model, **{**defaults, **options.changes})


def _own(model: str | Path | None) -> str | None:
    """The preset file in a model's folder; of one that is not there none: it is refused where it is loaded."""
    try:
        own = None if model is None else find_model(model) / DECODER_FILE
    except ValueError:
        return None
    return str(own) if own is not None and own.is_file() else None


def yours(options: Yours) -> dict[str, Callable[..., DecodeConfig]]:
    """The decoder of the user's, if there is one: its name in tables, and the config for a canvas and defaults."""
    if options.preset is None and not options.changes:
        return {}
    name = options.preset or "lrd"
    said = (f"{field.replace('_', '-')} {value}" for field, value in options.changes.items())
    return {
        "yours: " + ", ".join([name, *said]): lambda gen_length, **defaults: preset(
            name, gen_length, **{**defaults, **options.changes}
        )
    }


def adjusted(config: DecodeConfig, changes: Mapping[str, Any]) -> DecodeConfig:
    """A decoder with fields set otherwise, named as in `preset`.

    Raises:
      ValueError: see `preset`.
    """
    return _adjusted(config, config.block_length, changes)


def _named(name: str, gen_length: int) -> tuple[DecodeConfig, int | None]:
    """A named preset, as one block, and its window: one that is asked for may fit the canvas where its own does not."""
    if name.startswith("paper/"):
        parts = name.split("/")
        if len(parts) != 3:
            raise Refused(f"preset {name!r} must be written paper/CHECKPOINT/BENCHMARK, as paper/llada-1.5/gsm8k")
        return DecodeConfig.paper(gen_length), paper_block_length(*parts[1:])
    if "/" in name:
        return published(name, gen_length)
    if name not in DECODERS:
        raise Refused(
            f"preset {name!r} is unknown; choose one of {', '.join(DECODERS)}, paper/CHECKPOINT/BENCHMARK, "
            f"NAME/BENCHMARK as dllm-cache/gsm8k, or a file that ends in {' or '.join(SUFFIXES)}"
        )
    config = DECODERS[name](gen_length)
    return config.replace(block_length=None), config.block_length


def _in_file(file: PresetFile, gen_length: int) -> tuple[DecodeConfig, int | None]:
    """That of a file, likewise."""
    decoder = dict(file.decoder)
    if file.base is None:
        window = decoder.pop("block_length", None)
        return from_table({**decoder, "gen_length": gen_length}), window
    base, window = _named(file.base, gen_length)
    window = decoder.pop("block_length", window)
    return changed(base, decoder, texts=False), window


def _adjusted(config: DecodeConfig, window: int | None, changes: Mapping[str, Any]) -> DecodeConfig:
    """A decoder with its window and all changes: long names first, for they choose the parts that short ones mean."""
    changes = {name.replace("-", "_"): value for name, value in changes.items()}
    short = {name: changes.pop(name) for name in SHORT_NAMES if name in changes}
    config = changed(config, {"block_length": window, **changes})
    expanded: dict[str, Any] = {}
    for name, value in short.items():
        meant = [field for field in SHORT_NAMES[name].fields if _has(config, field)]
        if not meant:
            wanted = SHORT_NAMES[name]
            raise Refused(
                f"{name} changes {wanted.changes}, which this decoder does not have; leave it out or choose the preset "
                f"{wanted.presets}"
            )
        if twice := [field for field in meant if field in changes]:
            raise Refused(f"{name} and {twice[0]} are the same; leave one of them out")
        expanded |= dict.fromkeys(meant, value)
    return changed(config, expanded)


def _has(config: DecodeConfig, field: str) -> bool:
    part, _, name = field.partition(".")
    value = getattr(config, part)
    return value is not None and name in specs(type(value))


def paper_config(checkpoint: str, benchmark: str, gen_length: int = 512, **changes) -> DecodeConfig:
    """LRD as the paper ran it: `DecodeConfig.paper` with the active window of this checkpoint on this benchmark.

    Args:
      checkpoint: one of `PAPER_CHECKPOINTS`.
      benchmark: one of `BENCHMARKS`.
      gen_length: G; the paper's are `PAPER_GEN_LENGTHS`.
      changes: see `preset`.

    Raises:
      ValueError: an unknown checkpoint or benchmark, or a gen_length that the window does not divide.
    """
    return preset(f"paper/{checkpoint}/{benchmark}", gen_length, **changes)


def paper_block_length(checkpoint: str, benchmark: str) -> int | None:
    """The active window that the paper gives a checkpoint on a benchmark; None: the whole canvas.

    Raises:
      ValueError: an unknown checkpoint or benchmark.
    """
    for kind, name, known in (("checkpoint", checkpoint, PAPER_CHECKPOINTS), ("benchmark", benchmark, BENCHMARKS)):
        if name not in known:
            raise Refused(f"{kind} {name!r} is not one of the paper's: {', '.join(known)}")
    return PAPER_BLOCK_LENGTHS.get(checkpoint, {}).get(benchmark)

"""Decoders by name, and the paper's settings for each checkpoint and benchmark as data."""

from collections.abc import Callable

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.parts.commit.basic import LowestEntropy, Threshold
from lrd_jax.decoding.parts.commit.reference import DreamThreshold
from lrd_jax.models.checkpoints import CHECKPOINTS
from lrd_jax.preset_files import SUFFIXES, PresetFile, is_preset_file, read_preset

DECODERS: dict[str, Callable[[int], DecodeConfig]] = {
    "lrd": DecodeConfig.lrd,
    "paper": DecodeConfig.paper,
    "plain": DecodeConfig.plain,
    "fast": DecodeConfig.fast,
    "llada": DecodeConfig.llada,
    "dream": DecodeConfig.dream,
}

BENCHMARKS = ("humaneval", "mbpp", "gsm8k", "math500")
PAPER_GEN_LENGTHS = (256, 512, 1024)

# Active window per checkpoint and benchmark (App. C): semi-autoregressive where the checkpoint's own evaluation is, and
# with that evaluation's lengths; every other pair decodes the whole canvas as one block.
PAPER_BLOCK_LENGTHS = {
    "llada-8b-instruct": {"humaneval": 32, "mbpp": 32, "gsm8k": 8, "math500": 64},
    "llada-1.5": {"humaneval": 32, "mbpp": 32, "gsm8k": 16, "math500": 128},
}


def preset(name: str, gen_length: int, **changes) -> DecodeConfig:
    """The decoder called `name`: a key of `DECODERS`, "paper/CHECKPOINT/BENCHMARK", or a preset file (.json, .toml).

    Args:
      gen_length: G, positions to generate.
      changes: fields of `DecodeConfig` to set otherwise.

    Raises:
      ValueError: an unknown name, a file that cannot be read as a preset, or values that `DecodeConfig` refuses.
    """
    if is_preset_file(name):
        return file_config(read_preset(name), name, gen_length, **changes)
    if name.startswith("paper/"):
        parts = name.split("/")
        if len(parts) != 3:
            raise ValueError(f"preset {name!r} must be written paper/CHECKPOINT/BENCHMARK, as paper/llada-1.5/gsm8k")
        return paper_config(parts[1], parts[2], gen_length, **changes)
    if name not in DECODERS:
        raise ValueError(
            f"preset {name!r} is unknown; choose one of {', '.join(DECODERS)}, paper/CHECKPOINT/BENCHMARK, or a file "
            f"that ends in {' or '.join(SUFFIXES)}"
        )
    return DECODERS[name](gen_length, **changes)


def paper_config(checkpoint: str, benchmark: str, gen_length: int = 512, **changes) -> DecodeConfig:
    """LRD as the paper ran it: `DecodeConfig.paper` with the active window of this checkpoint on this benchmark.

    Args:
      checkpoint: a key of `lrd_jax.models.checkpoints.CHECKPOINTS`.
      benchmark: one of `BENCHMARKS`.
      gen_length: G; the paper's are `PAPER_GEN_LENGTHS`.
      changes: fields of `DecodeConfig` to set otherwise.

    Raises:
      ValueError: an unknown checkpoint or benchmark, or a gen_length that the window does not divide.
    """
    for kind, name, known in (("checkpoint", checkpoint, tuple(CHECKPOINTS)), ("benchmark", benchmark, BENCHMARKS)):
        if name not in known:
            raise ValueError(f"{kind} {name!r} is not one of the paper's: {', '.join(known)}")
    block_length = PAPER_BLOCK_LENGTHS.get(checkpoint, {}).get(benchmark)
    return DecodeConfig.paper(gen_length, **{"block_length": block_length, **changes})


def file_config(file: PresetFile, name: str, gen_length: int, **changes) -> DecodeConfig:
    """The decoder that a preset file describes.

    Args:
      name: of the file, for messages.
      changes: fields of `DecodeConfig` to set otherwise.

    Raises:
      ValueError: values that `DecodeConfig` refuses, naming the file.
    """
    window = {} if file.block_length is None else {"block_length": file.block_length}
    try:
        return file.decoder.applied(preset(file.base, gen_length, **{**window, **changes}))
    except ValueError as error:
        raise ValueError(f"preset file {name}: {error}") from None


def adjusted(
    config: DecodeConfig,
    *,
    r_f: float | None = None,
    top_p: float | None = None,
    tau: float | None = None,
    threshold: float | None = None,
    temperature: float | None = None,
) -> DecodeConfig:
    """The same decoder with some of its numbers changed; None leaves a number as it is.

    Args:
      r_f, top_p: of `mix`.
      tau: of `refine` and `stop`, whichever the decoder has, nats.
      threshold: of the commit rule; `LowestEntropy` gains one by it.
      temperature: of the tokens' draw.

    Raises:
      ValueError: a number out of range, or one that the decoder has no part for.
    """
    if (r_f is not None or top_p is not None) and config.mix is None:
        raise ValueError(_no_part("r_f and top_p change the mixing", "lrd or paper"))
    if tau is not None and config.refine is None and config.stop is None:
        raise ValueError(_no_part("tau changes the refinement and the stop", "lrd or paper"))
    if threshold is not None and not isinstance(config.commit, LowestEntropy | Threshold | DreamThreshold):
        raise ValueError(_no_part("threshold changes a commit rule that has one", "lrd, paper, plain or fast"))
    parts = {
        "mix": _with(config.mix, r_f=r_f, top_p=top_p),
        "refine": _with(config.refine, tau=tau),
        "stop": _with(config.stop, tau=tau),
        "commit": _with(config.commit, threshold=threshold) if threshold is not None else config.commit,
    }
    return config.replace(**parts, draw=_with(config.draw, temperature=temperature))


def _no_part(what: str, decoders: str) -> str:
    return f"{what}, which this decoder does not have; leave it out or choose the preset {decoders}"


def _with(part, **numbers):
    given = {name: number for name, number in numbers.items() if number is not None}
    return part if part is None or not given else type(part)(**{**vars(part), **given})

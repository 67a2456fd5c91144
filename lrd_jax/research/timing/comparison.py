"""A whole benchmark: decoders and their references, warmed up, then timed in turns."""

import contextlib
import dataclasses
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jaxlib
import numpy as np

from lrd_jax.checkpoint import load
from lrd_jax.convert import write_hf
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import make_decode
from lrd_jax.errors import Refused
from lrd_jax.models import Model, ModelConfig
from lrd_jax.models.transformer import Params
from lrd_jax.options import Processes
from lrd_jax.presets import yours
from lrd_jax.research.timing.clones import pair_up
from lrd_jax.research.timing.decoders import DECODERS, Canvas
from lrd_jax.research.timing.measure import Run, Spread, Subject, peak_memory
from lrd_jax.research.timing.options import DEFAULT_SIZES, Bench
from lrd_jax.research.timing.reference import COUNTERPARTS, Counterpart, Reference, cores
from lrd_jax.research.timing.sizes import random_params, random_prompts, sized
from lrd_jax.sharding import mesh_asked
from lrd_jax.version import __version__

Say = Callable[[str], None]


class Pair:
    """A decoder and a function of a reference that does the same work, run on the same prompts."""

    def __init__(self, subject: Subject, reference: Reference, counterpart: Counterpart, arguments, prompt: np.ndarray):
        self.subject = subject
        self._reference, self._counterpart = reference, counterpart
        self._call = counterpart.function, prompt, arguments
        self.first = reference.run(*self._call)
        self.runs: list[Run] = []

    def repeat(self) -> None:
        """One more timed run of the reference; the subject has just had its own."""
        self.runs.append(self._reference.run(*self._call))

    @property
    def first_difference(self) -> list[int] | None:
        """Row and position of the first token that differs; None where all agree."""
        differ = np.argwhere(np.asarray(self.first.tokens) != np.asarray(self.subject.first.tokens))
        return differ[0].tolist() if len(differ) else None

    def to_json(self) -> dict[str, Any]:
        """What was measured, JSON-ready; a ratio is of the reference's time to ours, run by run."""
        seconds = Spread.of([run.seconds for run in self.runs])
        turns = list(zip(self.runs, self.subject.runs, strict=True))
        ratio = Spread.of([theirs.seconds / ours.seconds for theirs, ours in turns])
        forwards = self.first.forwards
        return {
            "reference": self._reference.name,
            "function": self._counterpart.function,
            "decoder": self.subject.name,
            "forwards": forwards,
            "seconds": dataclasses.asdict(seconds),
            "seconds_per_forward": dataclasses.asdict(seconds.times(1 / forwards)),
            "ratio": dataclasses.asdict(ratio),
            "ratio_per_forward": dataclasses.asdict(ratio.times(self.subject.first.forwards / forwards)),
            "tokens_agree": self.first_difference is None,
            "first_difference": self.first_difference,
        }


def compare(options: Bench, say: Say = lambda words: None) -> dict[str, Any]:
    """Measures what the options ask for.

    Args:
      say: told what happens, a few words at a time.

    Returns:
      A JSON-ready dict, see docs/benchmark.md.

    Raises:
      ValueError: options that do not go together, a model that cannot be had, or a reference that cannot be run.
    """
    canvas, configs = configs_of(options)
    if options.model is None and options.sizes is None:
        options = dataclasses.replace(options, sizes=DEFAULT_SIZES)
    python = sys.executable if options.reference_python is None else options.reference_python
    with contextlib.ExitStack() as stack:
        clones = pair_up(options.reference)
        if clones and options.batch > 1:
            raise Refused(f"batch={options.batch}: the references decode one prompt at a time; compare with batch 1")
        references = [stack.enter_context(Reference(clone, python)) for clone in clones]
        matches = _matches(configs, references)
        say("making the weights")
        model, params = _model(options)
        _check_heads(model.config, references)
        decoders = {name: make_decode(model, config) for name, config in configs.items()}
        prompt = random_prompts(model.config, options.batch, options.prompt_length, options.seed)
        if references:
            say("handing the weights to the references")
            _hand_over(params, model.config, options.dtype, references, canvas)
        subjects, pairs = {}, []
        for name, decoder in decoders.items():
            say(f"compiling {name}")
            subjects[name] = Subject(name, decoder, params, prompt)
        for reference, counterpart in matches:
            say(f"warming up {reference.name}'s {counterpart.function}")
            arguments = counterpart.arguments(canvas, model.config.mask_id)
            pairs.append(Pair(subjects[counterpart.decoder], reference, counterpart, arguments, prompt))
        for turn in range(options.repeats):
            for subject in subjects.values():
                say(f"run {turn + 1} of {options.repeats}: {subject.name}")
                subject.repeat()
                for pair in pairs:
                    if pair.subject is subject:
                        pair.repeat()
    return {
        "options": {**_asked(options), "reference": [str(path) for path in options.reference]},
        "machine": machine_facts(references),
        "model": model.config.to_json(),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "decoders": [subject.to_json() for subject in subjects.values()],
        "references": [pair.to_json() for pair in pairs],
        "peak_memory": peak_memory(),
    }


def configs_of(options: Bench) -> tuple[Canvas, dict[str, DecodeConfig]]:
    """What is filled, and the decoders by name.

    Raises:
      ValueError: an unknown decoder, or one that does not fit the canvas.
    """
    canvas = Canvas(
        gen_length=options.gen_length,
        block_length=options.block_length,
        steps=options.gen_length if options.steps is None else options.steps,
        threshold=options.threshold,
    )
    if unknown := [name for name in options.decoders if name not in DECODERS]:
        raise Refused(f"decoders={' '.join(unknown)} is unknown; choose among {', '.join(DECODERS)}")
    configs = {name: DECODERS[name](canvas) for name in options.decoders}
    blocks = {} if options.block_length is None else {"block_length": options.block_length}
    return canvas, configs | {name: make(options.gen_length, **blocks) for name, make in yours(options).items()}


def _asked(options: Bench) -> dict[str, Any]:
    """The options, but for those that number the processes."""
    apart = {field.name for field in dataclasses.fields(Processes)}
    return {name: value for name, value in dataclasses.asdict(options).items() if name not in apart}


def _matches(configs, references: list[Reference]) -> list[tuple[Reference, Counterpart]]:
    """What each reference can do of what the decoders do.

    Raises:
      ValueError: a reference that can do nothing of it.
    """
    matches = []
    for reference in references:
        able = [counterpart for counterpart in COUNTERPARTS if reference.can(counterpart)]
        found = [counterpart for counterpart in able if counterpart.decoder in configs]
        if not found:
            raise Refused(
                f"reference {reference.name} has no function that does what {', '.join(configs)} do; "
                f"of the decoders it can be compared with {', '.join(c.decoder for c in able) or 'none'}"
            )
        matches += [(reference, counterpart) for counterpart in found]
    return matches


def _model(options: Bench) -> tuple[Model, Params]:
    mesh = mesh_asked(options.mesh)
    if options.model is not None:
        loaded = load(options.model, mesh, options.dtype)
        _check_family(options, loaded.config)
        return loaded.model, loaded.params
    config = sized(str(options.sizes), **options.random_sizes)
    _check_family(options, config)
    drawn = random_params(config, dtype=options.dtype, logit_std=options.logit_std, seed=options.seed, mesh=mesh)
    return Model(config), drawn


def _check_family(options: Bench, config: ModelConfig) -> None:
    if options.reference and config.family != "llada":
        raise Refused(f"the references run LLaDA's architecture; {options.model or options.sizes} is of another")


def _check_heads(config: ModelConfig, references: list[Reference]) -> None:
    for reference in references:
        if config.num_kv_heads != config.num_heads and not reference.kind.grouped:
            raise Refused(
                f"reference {reference.name} wants keys for each of the {config.num_heads} heads; this model has "
                f"{config.num_kv_heads}"
            )


def _hand_over(params: Params, config: ModelConfig, dtype: str, references: list[Reference], canvas: Canvas) -> None:
    """Every reference loads the weights from a Hugging Face folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "weights"
        write_hf(params, config, folder)
        for reference in references:
            reference.load(folder, dtype, canvas)


def machine_facts(references: Sequence[Reference] = ()) -> dict[str, Any]:
    """Where this ran, and with what."""
    ours = {"lrd-jax": __version__, "jax": jax.__version__, "jaxlib": jaxlib.__version__}
    return {
        "device": jax.devices()[0].device_kind,
        "system": f"{platform.system()} {platform.machine()}",
        "cores": cores(),
        "versions": ours | {f"{ref.name}: {name}": v for ref in references for name, v in ref.versions.items()},
    }

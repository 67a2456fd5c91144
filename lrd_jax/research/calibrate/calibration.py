"""A whole calibration: from a model and a file of prompts to a preset file, its picture and what people read."""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

from lrd_jax.checkpoint import load
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.text_form import difference, to_table
from lrd_jax.errors import Refused
from lrd_jax.preset_files import PresetFile, check_preset_path, is_preset_file, read_preset, write_preset
from lrd_jax.presets import decoder, preset
from lrd_jax.research.calibrate import certify, picture
from lrd_jax.research.calibrate.judge import Judge
from lrd_jax.research.calibrate.options import Calibrate
from lrd_jax.research.calibrate.outcomes import source_of
from lrd_jax.research.calibrate.scan import Point, ahead, changed, grid, knee, measure, scan
from lrd_jax.research.calibrate.tunable import Tunable
from lrd_jax.research.calibrate.tuning import Tuning
from lrd_jax.research.prompts import Example, read_examples
from lrd_jax.sharding import mesh_asked
from lrd_jax.text import encode_prompts, pad_to_bucket

Say = Callable[[str], None]

# The guard rises and everything else stays, so that each setting stops no later than the one before: risk and speed
# grow together, and the last to pass is the fastest. Fixed before any data, in nats.
LADDER = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, float("inf"))
# Likewise of a decoder that settles: a larger tau ends its refinement no later.
SETTLING_LADDER = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 1.0, 3.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What a calibration found.

    Attributes:
      preset: as it was written; None where nothing was certified.
      points: those to show: the front of a scan, or the sequence of a certificate.
      chosen: the point of the preset file; None with it.
      reference: the base decoder without stops.
      rungs: the tests of a certificate, one a point; empty for a scan.
      rows_decoded: decodes of a prompt that were needed; settings: how many settings they told about.
      differ: answers or forwards of the chosen setting that a decode from the written file gives otherwise than they
        were read off.
    """

    preset: PresetFile | None
    points: list[Point]
    chosen: Point | None
    reference: Point
    rungs: list[certify.Rung]
    prompts: int
    settings: int
    rows_decoded: int
    differ: int


def calibrate(options: Calibrate, say: Say = lambda words: None) -> Report:
    """Does what the options ask for, and writes the preset file and its picture.

    Args:
      say: told what happens, a few words at a time.

    Raises:
      ValueError: options, data or a model that cannot be used; before anything is decoded wherever it can be known.
    """
    check_preset_path(options.output)
    picture.check_picture(options.picture_path)
    if options.output.exists() and options.data.exists() and options.output.samefile(options.data):
        raise Refused(f"--output {options.output} is the --data, which it would replace: name another file")
    base_name, base = _base(options)
    examples = read_examples(options.data)
    if options.risk is not None:
        certify.check_levels(options.risk, options.confidence)
        certify.check_enough(len(examples), options.risk, options.confidence)
        _check_fresh(options, examples)
        tunings = _ladder(Tuning.of(base))
    else:
        settles = Tuning.of(base).settles
        tunings = grid(
            r_f=options.r_f,
            tau_refine=options.tau_refine,
            tau_decode=(None,) if settles else options.tau_decode,
            max_entropy=(None,) if settles else options.max_entropy,
            reduce=options.reduce,
            scope=options.scope,
        )
        for tuning in tunings:
            tuning.applied(base)  # refuses numbers out of range

    say(f"loading {options.model}")
    loaded = load(options.model, mesh_asked(options.mesh), options.dtype)
    model, params, config = loaded.model, loaded.params, loaded.config
    prompt, mask = encode_prompts(loaded.tokenizer, [example.prompt for example in examples], chat=options.chat)
    prompt, mask = pad_to_bucket(prompt, mask, config.max_length - base.gen_length)
    tunable = Tunable(model, params, base, prompt, mask, min(options.batch, len(examples)))
    source, judge = source_of(tunable), Judge(loaded.tokenizer, config, examples)

    say("decoding without stops")
    unstopped = Tuning.of(base).unstopped
    source.prepare([unstopped])
    reference = measure(unstopped, source.outcomes(unstopped), judge)
    points = scan(source, tunings, judge, reference, say)

    rungs = []
    if options.risk is None:
        shown = ahead(points)
        chosen = knee(shown, options.max_loss)
    else:
        counts = [changed(point.texts, reference.texts) for point in points]
        rungs = certify.fixed_sequence(counts, len(examples), options.risk, options.confidence)
        shown = points
        passed = [point for point, rung in zip(points, rungs, strict=True) if rung.certified]
        chosen = passed[-1] if passed else None

    found = Report(
        preset=None,
        points=shown,
        chosen=chosen,
        reference=reference,
        rungs=rungs,
        prompts=len(examples),
        settings=len(tunings),
        rows_decoded=source.decodes,
        differ=0,
    )
    title = f"{options.model}, {options.preset}, canvas {base.gen_length}, {len(examples)} prompts"
    if options.risk is None:
        picture.draw_front(options.picture_path, points, shown, chosen, reference, title)
    else:
        picture.draw_sequence(
            options.picture_path, _sequence(found), options.risk, options.confidence, f"{title}: certificate"
        )
    if chosen is None:
        return found

    say("decoding with the chosen settings")
    decoded = [(judge.text(tokens), forwards) for tokens, forwards in tunable.run(chosen.tuning.applied(base))]
    read_off = zip(chosen.texts, chosen.counts, strict=True)
    differ = sum(one != other for one, other in zip(decoded, read_off, strict=True))
    found = dataclasses.replace(found, differ=differ)
    written = PresetFile(
        base=base_name,
        decoder=decoder_table(base_name, base, chosen.tuning),
        measured=_measured(options, found, examples),
        certificate=_certificate(options, found) if rungs else {},
    )
    write_preset(options.output, written)
    return dataclasses.replace(found, preset=written)


def _base(options: Calibrate) -> tuple[str | None, DecodeConfig]:
    """The named preset that the new file will build on, None for a file that has none; the decoder to calibrate."""
    base = decoder(options)
    try:
        Tuning.of(base)
    except ValueError as error:
        raise Refused(f"preset {options.preset}: {error}") from None
    if base.draws:
        raise Refused(
            "the decoder draws its tokens or its order, and a calibration compares decodes that do not: "
            "leave out the temperature, or choose a commit rule that does not draw"
        )
    return read_preset(options.preset).base if is_preset_file(options.preset) else options.preset, base


def _ladder(tuning: Tuning) -> list[Tuning]:
    """The fixed sequence of a certificate."""
    if tuning.settles:
        return [tuning.replace(tau_refine=tau) for tau in SETTLING_LADDER]
    return [tuning.replace(max_entropy=guard) for guard in LADDER]


def _rung(tuning: Tuning) -> dict[str, Any]:
    """What a setting of the sequence has of its own."""
    return {"tau_refine": tuning.tau_refine} if tuning.settles else {"max_entropy": tuning.guard}


def decoder_table(base_name: str | None, base: DecodeConfig, tuning: Tuning) -> dict:
    """What a preset file holds: the settings that were chosen, and all else that the calibrated decoder has otherwise.

    Args:
      base_name: the named preset that the file builds on; None: the table is the whole decoder.
    """
    if base_name is None:
        return to_table(tuning.applied(base))
    named = preset(base_name, base.gen_length, block_length=base.block_length)
    table = difference(tuning.applied(base), named)
    window = {} if base.block_length is None else {"block_length": base.block_length}
    return {**window, **table, **{part: {**chosen, **table.get(part, {})} for part, chosen in tuning.changes.items()}}


def _check_fresh(options: Calibrate, examples: list[Example]) -> None:
    """Raises ValueError where the preset to certify was chosen on these prompts: the guarantee would not hold."""
    seen = _seen(options)
    if again := sum(_hash(example) in seen for example in examples):
        raise Refused(
            f"{again} of the {len(examples)} prompts in {options.data} chose the settings of {options.preset}; "
            "a certificate takes prompts that they have not seen"
        )


def _seen(options: Calibrate) -> set[str]:
    """Hashes of all prompts that chose the settings of the preset to calibrate."""
    known = read_preset(options.preset).measured.get("prompt_hashes", []) if is_preset_file(options.preset) else []
    return {str(one) for one in known} if isinstance(known, list) else set()


def _hash(example: Example) -> str:
    return hashlib.sha256(example.prompt.encode()).hexdigest()[:16]


def _measured(options: Calibrate, found: Report, examples: list[Example]) -> dict:
    chosen, reference = found.chosen, found.reference
    quality = {} if chosen.accuracy is None else {"accuracy": chosen.accuracy, "unstopped_accuracy": reference.accuracy}
    return {
        "model": options.model,
        "gen_length": options.gen_length,
        "prompts": found.prompts,
        "forwards": chosen.forwards,
        "unstopped_forwards": reference.forwards,
        "agreement": chosen.agreement,
        **quality,
        "decodes_that_differ": found.differ,
        "prompt_hashes": sorted(_seen(options) | {_hash(example) for example in examples}),
    }


def _certificate(options: Calibrate, found: Report) -> dict:
    """What was certified, and everything that the claim rests on."""
    rung = found.rungs[found.points.index(found.chosen)]
    return {
        "claim": "early stops change the text of at most this share of answers",
        "risk": options.risk,
        "confidence": options.confidence,
        "prompts": found.prompts,
        "changed": rung.changed,
        "bound": rung.bound,
        "method": "fixed-sequence testing, exact binomial p-values; the order is fixed by design, rising "
        + ", ".join(_rung(found.chosen.tuning)),
        "sequence": _sequence(found),
    }


def _sequence(found: Report) -> list[dict]:
    return [
        {
            **_rung(point.tuning),
            "forwards": point.forwards,
            "changed": rung.changed,
            "rate": rung.changed / found.prompts,
            "bound": rung.bound,
            "certified": rung.certified,
        }
        for point, rung in zip(found.points, found.rungs, strict=True)
    ]

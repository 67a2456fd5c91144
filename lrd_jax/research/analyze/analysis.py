"""`lrd-jax analyze` from options to files: data, tables and a picture for each question."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from lrd_jax.checkpoint import Loaded, load
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import make_decode
from lrd_jax.decoding.parts.mix import Mix
from lrd_jax.decoding.parts.stop import Stop
from lrd_jax.decoding.request import check_prompt
from lrd_jax.errors import Refused
from lrd_jax.options import OnMesh
from lrd_jax.presets import decoder
from lrd_jax.research.analyze import stops
from lrd_jax.research.analyze.domains import Domain, file_domains, task_domains
from lrd_jax.research.analyze.options import Analyze
from lrd_jax.research.analyze.stops import Unstopped, outcome
from lrd_jax.research.analyze.tables import TABLES
from lrd_jax.research.analyze.trajectories import decode_trajectory, sweep
from lrd_jax.research.plots import check_matplotlib
from lrd_jax.research.record import decode_all, record, recordable
from lrd_jax.research.results import write_json
from lrd_jax.research.statistics import share
from lrd_jax.sharding import mesh_asked
from lrd_jax.text import decode_text, encode_prompts

Report = Callable[[str], None]

PAPER_STOP, SHIPPED_STOP = Stop(), DecodeConfig.lrd().stop


def analyze(options: Analyze, report: Report = lambda words: None) -> dict[str, Any]:
    """Measures every part whose data the output folder does not hold yet, and draws all that were asked for.

    Args:
      report: called with a line of progress.

    Returns:
      The data by part, as the JSON files hold it.

    Raises:
      ValueError: the folder holds data of other settings; or what loading the model and the prompts raises.
    """
    check_matplotlib()
    unstopped(options)  # refuses before anything is loaded
    from lrd_jax.research.analyze import pictures

    found = {part: _read(options, part) for part in options.what}
    if missing := [part for part in options.what if found[part] is None]:
        subject = _Subject(options, report)
        options.output.mkdir(parents=True, exist_ok=True)
        measure = {"stops": subject.stops, "trajectories": subject.trajectories, "domains": subject.domains}
        for part in missing:
            report(f"{part}: measuring")
            found[part] = measure[part]()
            _write(options, part, found[part])
    for part, data in found.items():
        (options.output / f"{part}.md").write_text(TABLES[part](data), encoding="utf-8")
        pictures.DRAW[part](data, options.model, options.output / f"{part}.png")
    return found


def unstopped(options: Analyze) -> DecodeConfig:
    """The decoder that is looked into.

    Raises:
      ValueError: one without mixing or refinement, of several blocks, or that draws.
    """
    config = recordable(decoder(options).replace(stop=None))
    if not isinstance(config.mix, Mix) or config.refine is None:
        raise Refused("the decoder has no mixing or no refinement to look into; choose the preset paper or lrd")
    return config


class _Subject:
    """The model and its prompts, and the records that several questions share."""

    def __init__(self, options: Analyze, report: Report):
        self.options, self.report = options, report
        self.loaded: Loaded = load(options.model, mesh_asked(options.mesh), options.dtype)
        if self.loaded.tokenizer is None:
            raise Refused(f"{options.model} has no tokenizer; copy tokenizer.json there from the model's release")
        if options.data:
            self.all_domains = file_domains(options.data, options.count)
        else:
            self.all_domains = task_domains(options.count, options.seed, options.gen_length, self.loaded.tokenizer)
        everything = [prompt for domain in self.all_domains for prompt in domain.prompts]
        encoded = encode_prompts(self.loaded.tokenizer, everything, chat=options.chat)  # of one length: one compile
        check_prompt(*encoded, options.gen_length, self.loaded.config)
        cuts = np.cumsum([len(domain.prompts) for domain in self.all_domains])[:-1]
        parts = zip(*(np.split(x, cuts) for x in encoded), strict=True)
        self.prompts = {domain.name: part for domain, part in zip(self.all_domains, parts, strict=True)}
        self._unstopped: dict[str, Unstopped] = {}

    @property
    def known(self) -> list[Domain]:
        """The domains that were trained on; of files, all."""
        return [domain for domain in self.all_domains if domain.trained is not False]

    @property
    def config(self) -> DecodeConfig:
        """LRD as the paper has it, unless told otherwise, but never stopped."""
        return unstopped(self.options)

    def unstopped(self, domain: Domain) -> Unstopped:
        if domain.name not in self._unstopped:
            decoder = make_decode(self.loaded.model, self.config)
            prompt, mask = self.prompts[domain.name]
            recorded = record(decoder, self.loaded.params, prompt, mask, self.options.batch)
            self._unstopped[domain.name] = Unstopped.of(domain, self.loaded, recorded)
            self.report(f"{domain.name}: {len(prompt)} prompts recorded without a stop")
        return self._unstopped[domain.name]

    def stops(self) -> dict[str, Any]:
        runs = [self.unstopped(domain) for domain in self.known]
        without = {"prompts": sum(len(run.record.final) for run in runs)}
        without["forwards"] = float(np.concatenate([run.record.forwards for run in runs]).mean())
        if runs[0].right is not None:
            without["accuracy"] = share(np.concatenate([run.right for run in runs]))
        return {
            "unstopped": without,
            "KL alone": [outcome(runs, Stop(tau)) for tau in stops.TAUS],
            "guarded": [outcome(runs, Stop(max_entropy=h)) for h in stops.MAX_ENTROPIES],
            "by KL at the stop": stops.by_divergence(runs),
            "by KL and entropy": stops.by_divergence_and_entropy(runs),
            "tokens filled by the paper's stop": stops.wrong_tokens(runs, PAPER_STOP),
        }

    def trajectories(self) -> dict[str, Any]:
        rows = [(domain, i) for i in range(self.options.count) for domain in self.known if i < len(domain.prompts)]
        rows = rows[: self.options.count]
        prompt, mask = (np.stack([self.prompts[domain.name][k][i] for domain, i in rows]) for k in (0, 1))
        some = slice(self.options.batch)
        decode = decode_trajectory(self.loaded, self.config, prompt[some], mask[some])

        def right(row: int, text: str) -> bool:
            domain, i = rows[row]
            return domain.right(i, text)

        checked = right if self.known[0].problems is not None else None
        cells = sweep(self.options, self.loaded, prompt, mask, checked, self.report)
        return {"r_f of the decode": self.config.mix.r_f, "decode": decode, "sweep": cells}

    def domains(self) -> dict[str, Any]:
        tuned_on = self.unstopped(self.all_domains[0])
        rules = {"paper's stop": PAPER_STOP, "guarded stop": SHIPPED_STOP}
        rules |= {f"tuned: {kind}": stop for kind, stop in stops.tuned(tuned_on, self.options.risk).items()}
        cells = []
        for domain in self.all_domains:
            run = self.unstopped(domain)
            cell = {
                "domain": domain.name,
                "trained": domain.trained,
                "prompts": len(domain.prompts),
                "unstopped": {"forwards": float(run.record.forwards.mean())},
                "stops": {name: outcome([run], stop) for name, stop in rules.items()},
                "decoders": {},
            }
            if run.right is not None:
                cell["unstopped"]["accuracy"] = share(run.right)
            for name, make in (("threshold 0.9", DecodeConfig.fast), ("lrd (shipped)", DecodeConfig.lrd)):
                cell["decoders"][name] = self._decoded(run, make(self.options.gen_length))
            cells.append(cell)
        return {"tuned on": tuned_on.domain.name, "risk": self.options.risk, "domains": cells}

    def _decoded(self, run: Unstopped, config: DecodeConfig) -> dict[str, Any]:
        """How another decoder does on a domain, and how often its answer is not the unstopped run's."""
        prompt, mask = self.prompts[run.domain.name]
        decoder = make_decode(self.loaded.model, config)
        tokens, forwards = decode_all(decoder, self.loaded.params, prompt, mask, self.options.batch)
        texts, before = self.texts(tokens), self.texts(run.record.final)
        facts = {"forwards": float(forwards.mean())}
        facts["changed"] = share(np.array([a != b for a, b in zip(texts, before, strict=True)]))
        if run.right is not None:
            facts["accuracy"] = share(np.array([run.domain.right(i, text) for i, text in enumerate(texts)]))
        return facts

    def texts(self, tokens: np.ndarray) -> list[str]:
        return decode_text(self.loaded.tokenizer, tokens, self.loaded.config)


def _settings(options: Analyze) -> dict[str, Any]:
    """What the data depend on."""
    usual = {"preset": "paper", "changes": {}, "dtype": None}  # as it was before they could be chosen
    apart = {"output", "what", *(field.name for field in dataclasses.fields(OnMesh))}
    chosen = {k: v for k, v in dataclasses.asdict(options).items() if k not in apart}
    chosen = {k: v for k, v in chosen.items() if k not in usual or v != usual[k]}
    return json.loads(json.dumps(chosen, default=str))


def _read(options: Analyze, part: str) -> dict[str, Any] | None:
    """A part's data, None where it was not measured yet."""
    file = options.output / f"{part}.json"
    if not file.exists():
        return None
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        stored["settings"].keys(), stored["data"].keys()
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise Refused(f"{file} is none that was written here ({error}); choose another --output or remove it") from None
    if stored["settings"] != _settings(options):
        differ = [k for k, v in _settings(options).items() if stored["settings"].get(k) != v]
        raise Refused(f"{file} was measured with another {', '.join(differ)}; choose another --output or remove it")
    return stored["data"]


def _write(options: Analyze, part: str, data: dict[str, Any]) -> None:
    write_json(options.output / f"{part}.json", {"settings": _settings(options), "data": data})

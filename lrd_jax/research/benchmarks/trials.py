"""Trials of an evaluation, one benchmark for one decoder each, and where their results lie.

A folder of results holds `MODEL/BENCHMARK-DECODER-LENGTH/` with `settings.json`, `records.jsonl`, `summary.json` and
the task file that lm-eval read.
"""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.text_form import to_table
from lrd_jax.research.benchmarks.benchmarks import Prompting
from lrd_jax.research.benchmarks.records import Record, read_records

SETTINGS, RECORDS, SUMMARY = "settings.json", "records.jsonl", "summary.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One benchmark for one decoder.

    Attributes:
      model: as it was named to us.
      checkpoint: the released checkpoint whose prompts are asked.
      asked: how.
      preset, gen_length, changes: the decoder's name and what was changed in it, as `lrd_jax.presets.preset` takes it.
      config: the decoder itself; None where the benchmark's own solutions answer.
      chat: prompts go through the model's chat template.
      begin_token: the begin token stands before prompts that are no chats.
      batch: rows decoded together.
      dtype: of the weights; None: as stored.
    """

    model: str
    checkpoint: str
    benchmark: str
    asked: Prompting
    preset: str
    gen_length: int
    changes: dict[str, Any]
    config: DecodeConfig | None
    chat: bool
    begin_token: bool
    batch: int = 1
    seed: int = 0
    dtype: str | None = None

    @property
    def name(self) -> str:
        changes = [f"{name}={_tidy(value)}" for name, value in sorted(self.changes.items())]
        return "-".join([self.benchmark, self.preset.replace("/", "."), str(self.gen_length), *changes])

    def folder(self, output: Path) -> Path:
        """Where its results lie in a folder of results."""
        return output / Path(self.model).name / self.name

    def to_json(self) -> dict[str, Any]:
        """Everything that its records depend on, JSON-ready."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        changes = {name: _tidy(value) for name, value in self.changes.items()}
        written = {"asked": dataclasses.asdict(self.asked), "changes": changes, "config": to_table(self.config)}
        return {**fields, **written}


def _tidy(value: Any) -> str:
    """A change as a name holds it: one way to write a number, and no slash."""
    for kind in (int, float):
        with contextlib.suppress(TypeError, ValueError):
            return str(kind(str(value)))
    return str(value).replace("/", ".")


def baseline_records(trial: Trial, output: Path) -> list[Record]:
    """Records of the paper's baseline beside a trial, if any: one token a forward, same model, prompts and length."""
    wanted = {**trial.to_json(), "preset": "plain"}
    same = ("model", "checkpoint", "benchmark", "asked", "preset", "gen_length", "chat", "batch", "dtype")
    for file in sorted(trial.folder(output).parent.glob(f"*/{SETTINGS}")):
        there = json.loads(file.read_text())
        plain = not set(there.get("changes", {"unknown"})) - {"block_length"}
        if plain and file.parent != trial.folder(output) and all(there[name] == wanted[name] for name in same):
            return read_records(file.parent / RECORDS)
    return []

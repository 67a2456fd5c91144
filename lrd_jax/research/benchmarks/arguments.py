"""What lm-eval's `--model_args` may hold for the model `lrd-jax`."""

import dataclasses
from difflib import get_close_matches
from typing import Any

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.text_form import all_fields, fields
from lrd_jax.errors import Refused
from lrd_jax.presets import SHORT_NAMES, preset


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelArguments:
    """What `--model_args` of lm-eval may hold: these, and whatever `lrd-jax generate` can change in a decoder.

    Attributes:
      pretrained: an embedded model, a converted folder or a Hugging Face folder.
      preset: as `lrd-jax generate --preset`.
      gen_length: positions to generate; `max_gen_toks` of a task is not read.
      changes: what is changed in the preset, by dotted or short name, such as `commit.threshold=0.8` and `tau=0.1`.
      dtype: of the weights; None keeps the stored one.
      begin_token: put the begin token before prompts without a chat template.
      samples: masked sequences that a log-likelihood is averaged over.
      seed: of draws and of masked sequences.
      records: folder that answers are kept in and read from again; None keeps none.
      batch_size: rows decoded together, and masked sequences per forward.
    """

    pretrained: str
    preset: str = "lrd"
    gen_length: int = 256
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    dtype: str | None = None
    begin_token: bool = False
    samples: int = 128
    seed: int = 0
    records: str | None = None
    batch_size: int = 1

    @classmethod
    def read(cls, given: dict[str, Any]) -> "ModelArguments":
        """From lm-eval's dict.

        Raises:
          ValueError: an unknown or missing name, or a batch size that is no number.
        """
        own = [field.name for field in dataclasses.fields(cls) if field.name != "changes"]
        given = {name: value for name, value in given.items() if name not in ("device", "max_batch_size")}
        changes = {name.replace("-", "_"): value for name, value in given.items() if name not in own}
        if unknown := sorted(name for name in changes if name not in SHORT_NAMES and not fields(name)):
            near = [
                close for name in unknown for close in get_close_matches(name, [*own, *SHORT_NAMES, *all_fields()], 1)
            ]
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise Refused(
                f"model_args {', '.join(unknown)} are unknown{hint}; there are {', '.join(own)}, and the fields of a "
                "decoder that `lrd-jax generate --help` lists"
            )
        if "pretrained" not in given:
            raise Refused("model_args lack pretrained=, the model to evaluate")
        if not str(given.get("batch_size", 1)).isdigit():
            raise Refused(f"batch_size={given['batch_size']!r} must be a number: no size is looked for")
        taken = {name: value for name, value in given.items() if name in own}
        return cls(**{**taken, "changes": changes, "batch_size": int(given.get("batch_size", 1))})

    def config(self) -> DecodeConfig:
        return preset(self.preset, self.gen_length, model=self.pretrained, **self.changes)

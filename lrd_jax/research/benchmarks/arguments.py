"""What lm-eval's `--model_args` may hold for the model `lrd-jax`."""

import dataclasses
from typing import Any

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.presets import adjusted, preset


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelArguments:
    """What `--model_args` of lm-eval may hold.

    Attributes:
      pretrained: an embedded model, a converted folder or a Hugging Face folder.
      preset: as `lrd-jax generate --preset`.
      gen_length: positions to generate; `max_gen_toks` of a task is not read.
      block_length, r_f, top_p, tau, threshold, temperature: in place of the preset's.
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
    block_length: int | None = None
    r_f: float | None = None
    top_p: float | None = None
    tau: float | None = None
    threshold: float | None = None
    temperature: float | None = None
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
        known = [field.name for field in dataclasses.fields(cls)]
        given = {name: value for name, value in given.items() if name not in ("device", "max_batch_size")}
        if unknown := sorted(set(given) - set(known)):
            raise ValueError(f"model_args {', '.join(unknown)} are unknown; there are {', '.join(known)}")
        if "pretrained" not in given:
            raise ValueError("model_args lack pretrained=, the model to evaluate")
        if not str(given.get("batch_size", 1)).isdigit():
            raise ValueError(f"batch_size={given['batch_size']!r} must be a number: no size is looked for")
        return cls(**{**given, "batch_size": int(given.get("batch_size", 1))})

    def config(self) -> DecodeConfig:
        structure = {} if self.block_length is None else {"block_length": self.block_length}
        numbers = {name: getattr(self, name) for name in ("r_f", "top_p", "tau", "threshold", "temperature")}
        return adjusted(preset(self.preset, self.gen_length, **structure), **numbers)

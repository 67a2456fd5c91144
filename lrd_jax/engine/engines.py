"""Several engines of one model on one device: one for each decoder and bucket of prompt lengths."""

from collections.abc import Mapping, Sequence
from typing import Any

from lrd_jax.checkpoint import Loaded
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.engine.engine import Engine, check_count
from lrd_jax.engine.handle import Handle, Listen
from lrd_jax.engine.request import Request
from lrd_jax.errors import Refused


class Engines:
    """Engines that take turns, and a request goes to the one that it fits best.

        configs = {"lrd": preset("lrd", 64), "fast": preset("fast", 64)}
        with Engines(loaded, configs, prompt_lengths=(32, 256)) as engines:
            answer = engines.submit(Request(prompt="..."), decoder="fast").result()

    Whatever differs in structure is a decoder of its own; numbers may differ from request to request. A decoder has an
    engine, with slots of its own, for each length of prompts: every forward of a slot computes that length. Turns
    divide the time of the device evenly between engines that have something to do: short prompts do not wait for long.

    Attributes:
      engines: by decoder and prompt length.
    """

    def __init__(
        self,
        loaded: Loaded,
        configs: Mapping[str, DecodeConfig],
        *,
        prompt_lengths: Sequence[int],
        **options: Any,
    ):
        """Compiles all of them.

        Args:
          configs: by the name of the decoder; the first is that of requests that name none.
          prompt_lengths: tokens that a prompt of each may have.
          options: of every `Engine`: slots, canvas, queue, every.

        Raises:
          Refused: no decoder or no length; or what `Engine` refuses.
        """
        if not isinstance(configs, Mapping) or not configs or not all(isinstance(name, str) for name in configs):
            raise Refused(f"configs must be a table of decoders by name, at least one config, got {configs!r:.80}")
        if not isinstance(prompt_lengths, Sequence) or isinstance(prompt_lengths, str) or not prompt_lengths:
            raise Refused(f"prompt_lengths must be a list of at least one length, got {prompt_lengths!r:.80}")
        for length in prompt_lengths:
            check_count("prompt_lengths", length)
        lengths = sorted(set(prompt_lengths))
        self.engines: dict[tuple[str, int], Engine] = {}
        self._names, self._lengths = tuple(configs), lengths
        beside = None
        try:
            for name, config in configs.items():
                for length in lengths:
                    beside = Engine(loaded, config, prompt_length=length, beside=beside, **options)
                    self.engines[name, length] = beside
        except BaseException:
            self.close(drain=False)
            raise

    def submit(self, request: Request, *, decoder: str | None = None, listen: Listen | None = None) -> Handle:
        """As `Engine.submit`.

        Raises:
          Refused: likewise; or an unknown decoder, naming those that are there.
        """
        name = self._names[0] if decoder is None else decoder
        if name not in self._names:
            raise Refused(f"decoder {name!r} is not among those of the engines: {', '.join(self._names)}")
        asked = self.engines[name, self._lengths[-1]].check(request)
        length = next(length for length in self._lengths if len(asked.work.prompt) <= length)
        return self.engines[name, length].put(asked, listen=listen)

    def close(self, drain: bool = True) -> None:
        """As `Engine.close`, of all."""
        for engine in self.engines.values():
            engine.stop(drain)
        for engine in self.engines.values():
            engine.close(drain)

    def __enter__(self) -> "Engines":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close(drain=error[0] is None)

"""What `lrd-jax serve` can be told. Imports nothing heavy: the command line parses it for its list of commands."""

import dataclasses
import ipaddress
from typing import Annotated

from tyro.conf import arg

from lrd_jax.errors import Refused
from lrd_jax.options import STORED_DTYPE, DecoderOptions, OnMesh

KEY_VARIABLE = "LRD_JAX_API_KEY"
_CANVAS = arg(
    metavar="INT", help_behavior_hint="(default: gen_length, and 64, 128, 256 where half the context is left)"
)
_PROMPT = arg(metavar="INT", help_behavior_hint="(default: 128 and 1024, or what the longest canvas leaves)")
_KEY = arg(metavar="KEY", help_behavior_hint=f"(default: the variable {KEY_VARIABLE}, or none)")
_NAME = arg(metavar="NAME", help_behavior_hint="(default: the folder's name)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serve(DecoderOptions, OnMesh):
    """Answer over HTTP as OpenAI's API does, and show the canvas in a browser; see docs/serving.md.

    Attributes:
      gen_length: positions of an answer that names no max_tokens.
      model: an embedded model, a converted folder or a Hugging Face folder.
      name: of the model, as clients ask for it.
      dtype: of the weights.
      also: further presets that a request may choose, such as fast or plain.
      slots: answers that are decoded together, for each decoder, canvas and prompt length.
      canvas: lengths of canvases that slots are kept for; a request gets the shortest that holds it.
      prompt_length: tokens of prompts that slots are kept for, likewise.
      host: address to listen on; other machines reach only an address of this one, or 0.0.0.0, and need a key.
      port: 0 takes a free one.
      api_key: what clients must send.
      open: let other machines ask without a key.
      queue: answers that may wait for a slot; more are told to come again.
      max_body: bytes of a request.
      drain_seconds: after SIGTERM or Ctrl-C, how long what runs may go on.
    """

    model: str = "lrd-tiny-refined"
    name: Annotated[str | None, _NAME] = None
    dtype: Annotated[str | None, STORED_DTYPE] = None
    also: tuple[str, ...] = ()
    slots: int = 16
    canvas: Annotated[tuple[int, ...], _CANVAS] = ()
    prompt_length: Annotated[tuple[int, ...], _PROMPT] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: Annotated[str | None, _KEY] = None
    open: bool = False
    queue: int = 256
    max_body: int = 2**20
    drain_seconds: float = 30.0

    def __post_init__(self):
        super().__post_init__()
        for name in ("slots", "queue", "max_body"):
            if getattr(self, name) < 1:
                raise Refused(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("canvas", "prompt_length"):
            if any(length < 1 for length in getattr(self, name)):
                raise Refused(f"{name}={getattr(self, name)} must be lengths of at least 1")
        if not 0 <= self.port < 2**16:
            raise Refused(f"port={self.port} must be from 0 to 65535")
        if not 0 <= self.drain_seconds < float("inf"):
            raise Refused(f"drain_seconds={self.drain_seconds} must be a number of seconds of at least 0")
        if self.api_key is not None and (not self.api_key.isascii() or not self.api_key.isprintable()):
            raise Refused("api_key must be printable ASCII: it travels in a header")
        if self.api_key is not None and not self.api_key.strip():
            raise Refused("api_key is empty; leave it out for none")


def check_reach(host: str, key: str | None, is_open: bool) -> None:
    """Raises ValueError where others than this machine could ask without a key, unless that is wanted."""
    if not (is_loopback(host) or key or is_open):
        raise Refused(
            f"host={host} can be reached from other machines, and there is no key: give --api-key or the variable "
            f"{KEY_VARIABLE}, or --open to let everybody ask"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"

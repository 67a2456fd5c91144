"""The devices that a plan can be for: what they hold, how fast they are, and how a slice of them is written."""

import dataclasses
import math
import re

from lrd_jax.errors import Refused


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """A kind of TPU chip that the compiler plans for.

    Attributes:
      dimensions: of its network.
      hbm_bytes: what the compiler lets a program have.
      hertz: its peak in bfloat16 by the multiplications a cycle at which the compiler prices large matmuls: 65,536 on
        v5e, 131,072 on v5p, 262,144 on v6e.
      link_bytes: a second, of one link in one direction.
      slice_bytes: a second, of a chip's share of the network between slices, in one direction.
    """

    dimensions: int
    hbm_bytes: int
    hertz: float
    link_bytes: float
    slice_bytes: float

    def collective_seconds(self, kind: str, nbytes: float, group: int) -> float:
        """How long a collective takes whose result has so many bytes on each of `group` chips.

        As a ring over two links of a chip, at full speed, without the time that a message needs to arrive.
        """
        if kind == BETWEEN_SLICES:
            return nbytes / self.slice_bytes
        if kind == "collective-permute":
            return nbytes / self.link_bytes
        turns = {"all-reduce": 2 * (group - 1) / group, "reduce-scatter": group - 1}.get(kind, (group - 1) / group)
        return turns * nbytes / (2 * self.link_bytes)


BETWEEN_SLICES = "send"

# Peaks, links and networks: docs.cloud.google.com/tpu/docs/v5e, /v5p and /v6e. Of the memory, the compiler's messages.
CHIPS = {
    "v5e": Chip(dimensions=2, hbm_bytes=int(15.75 * 2**30), hertz=1.50e9, link_bytes=50e9, slice_bytes=3.1e9),
    "v5p": Chip(dimensions=3, hbm_bytes=int(95.73 * 2**30), hertz=1.75e9, link_bytes=100e9, slice_bytes=6.2e9),
    "v6e": Chip(dimensions=2, hbm_bytes=int(31.24 * 2**30), hertz=1.75e9, link_bytes=100e9, slice_bytes=12.5e9),
}

GPUS = {  # bytes, as their makers print them
    "rtx4090": 24 * 10**9,
    "l4": 24 * 10**9,
    "a100-40gb": 40 * 10**9,
    "l40s": 48 * 10**9,
    "a100": 80 * 10**9,
    "h100": 80 * 10**9,
    "h200": 141 * 10**9,
    "b200": 180 * 10**9,
    "mi300x": 192 * 10**9,
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """TPU chips that one network joins, and how many such slices there are.

    Attributes:
      name: as libtpu takes it, such as "v5e:2x4".
      slices: of that shape.
    """

    name: str
    slices: int = 1

    @property
    def chip(self) -> Chip:
        return CHIPS[self.name.partition(":")[0]]

    @property
    def size(self) -> int:
        """Chips of one slice."""
        return math.prod(map(int, self.name.partition(":")[2].split("x")))

    @property
    def count(self) -> int:
        """Chips of all slices."""
        return self.size * self.slices


def parse_slice(text: str, slices: int = 1) -> Slice:
    """Slices of the shape that a text such as "v5e:2x4" names.

    Raises:
      ValueError: it names none.
    """
    found = re.fullmatch(r"([a-z0-9]+):([1-9]\d{0,2}(?:x[1-9]\d{0,2})*)", text)
    if not found or found[1] not in CHIPS:
        raise Refused(
            f"topology={text!r} is no slice; give a chip ({', '.join(CHIPS)}) and the shape of its slice, as in "
            "--topology v5e:2x4"
        )
    shape, wanted = found[2].split("x"), CHIPS[found[1]].dimensions
    if len(shape) != wanted:
        example = "x".join(["2", "2", "4"][-wanted:])
        raise Refused(f"topology={text!r}: a slice of {found[1]} has {wanted} sizes, as in {found[1]}:{example}")
    if slices < 1:
        raise Refused(f"slices={slices} must be at least 1")
    return Slice(text, slices)


def parse_gpus(text: str) -> tuple[str, int]:
    """The kind and the number of the GPUs that a text such as "h100:8" names.

    Raises:
      ValueError: an unknown kind, or no number.
    """
    kind, _, count = text.partition(":")
    if kind not in GPUS:
        raise Refused(f"gpu={text!r} is unknown; choose one of {', '.join(GPUS)} and how many, as in --gpu h100:8")
    if not re.fullmatch(r"[1-9]\d{0,5}", count or "1"):
        raise Refused(f"gpu={text!r}: {count!r} is no number of GPUs; write it as in --gpu {kind}:8")
    return kind, int(count or 1)

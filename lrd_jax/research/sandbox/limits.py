"""What one program may use."""

import dataclasses
import math

from lrd_jax.errors import Refused


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one run; where a program is examined, of it and of its tests each.

    Attributes:
      wall_seconds: from the start of the run, the interpreter's own start included, to its end.
      cpu_seconds: whole seconds of processor time, of each process.
      memory_bytes: address space, of each process; and what all processes together hold, looked at 20 times a second.
      processes: processes and threads that exist at once, the program's own first one counted.
      scratch_bytes: the scratch folder with everything in it, where each file counts as 1 KiB at least; without
        bubblewrap, each file in it.
      output_bytes: standard output and error together. A program that writes more is ended.
    """

    wall_seconds: float = 60.0
    cpu_seconds: int = 15
    memory_bytes: int = 1 << 30
    processes: int = 8
    scratch_bytes: int = 64 << 20
    output_bytes: int = 1 << 20

    def __post_init__(self):
        wall = self.wall_seconds
        if isinstance(wall, bool) or not isinstance(wall, int | float) or not 0 < wall < math.inf:
            raise Refused(f"Limits.wall_seconds={wall!r} must be a finite number of seconds above 0")
        for field in ("cpu_seconds", "memory_bytes", "processes", "scratch_bytes", "output_bytes"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 62:
                raise Refused(f"Limits.{field}={value!r} must be an integer of at least 1 and below 2**62")

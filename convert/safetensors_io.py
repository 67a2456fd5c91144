"""The safetensors format, read and written a piece at a time with plain file calls.

The library's own reader maps whole files into memory and its writer takes all tensors at once; a conversion must do
neither. Format: 8 bytes little-endian header length, a JSON header of dtypes, shapes and byte ranges, the data.
"""

import dataclasses
import json
import math
from collections.abc import Iterable
from pathlib import Path

import ml_dtypes
import numpy as np

DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MAX_HEADER = 100_000_000  # the library's own limit


class ConversionError(ValueError):
    """A checkpoint that cannot be read, or a destination that cannot be written; says everything that is wrong."""

    def __init__(self, what: str, problems: Iterable[str]):
        self.problems = tuple(problems)
        super().__init__(what + "".join(f"\n  - {problem}" for problem in self.problems))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A tensor in a file.

    Attributes:
      dtype: the format's own name, "F32" for one; `DTYPES` holds those that weights may have.
      begin: offset of its first byte in the file.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int

    @property
    def itemsize(self) -> int:
        return DTYPES[self.dtype].itemsize

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.itemsize

    def read_rows(self, rows: slice) -> np.ndarray:
        """The rows `start:stop` of the first axis, in the dtype of the file."""
        shape = (rows.stop - rows.start, *self.shape[1:])
        out = np.empty(shape, DTYPES[self.dtype])
        buffer = out.reshape(-1).view(np.uint8).data
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.begin + rows.start * math.prod(self.shape[1:]) * self.itemsize)
            done = 0
            while done < len(buffer):
                if not (count := file.readinto(buffer[done:])):
                    raise ConversionError(f"{self.file} ended early", ["it was shortened while it was read"])
                done += count
        return out


def read_header(file: Path) -> dict[str, Entry]:
    """The tensors of one file, by name.

    Raises:
      ConversionError: not a safetensors file, or shorter than its header promises.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER):
            raise ConversionError(f"cannot read {file}", [f"{file.name}: truncated: no whole header in {size} bytes"])
        try:
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            fields = {}
            for name, entry in header.items():
                begin, end = map(int, entry["data_offsets"])
                fields[name] = (str(entry["dtype"]), tuple(map(int, entry["shape"])), begin, end)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            problem = f"{file.name}: its header is not that of a safetensors file ({error})"
            raise ConversionError(f"cannot read {file}", [problem]) from None
    start = 8 + length
    problems = []
    promised = start + max((end for *_, end in fields.values()), default=0)
    if promised > size:
        problems.append(f"{file.name}: truncated: the header promises {promised} bytes, the file has {size}")
    for name, (dtype, shape, begin, end) in fields.items():
        what = f"{file.name}: {name} of {dtype}{list(shape)}"
        if begin < 0:
            problems.append(f"{what} lies at bytes {begin} to {end}")
        elif dtype in DTYPES and end - begin != (wanted := math.prod(shape) * DTYPES[dtype].itemsize):
            problems.append(f"{what} has {end - begin} bytes, wanted {wanted}")
    if problems:
        raise ConversionError(f"cannot read {file}", problems)
    return {
        name: Entry(file=file, dtype=dtype, shape=shape, begin=start + begin)
        for name, (dtype, shape, begin, _) in fields.items()
    }


def header_bytes(specs: dict[str, tuple[np.dtype, tuple[int, ...]]]) -> bytes:
    """The beginning of a file that holds these tensors one after the other; their data follow in the same order."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, (dtype, shape) in specs.items():
        end = begin + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data start on a multiple of 8, as the library writes them
    return len(text).to_bytes(8, "little") + text

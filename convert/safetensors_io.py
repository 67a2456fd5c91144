"""The safetensors format, read and written a piece at a time with plain file calls.

The library's own reader maps whole files into memory and its writer takes all tensors at once; a conversion must do
neither. Format: 8 bytes little-endian header length, a JSON header of dtypes, shapes and byte ranges, the data.
"""

import codecs
import dataclasses
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from lrd_jax.errors import Refused

DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}
NAMES = {dtype: name for name, dtype in DTYPES.items()} | {np.dtype(np.int8): "I8"}
_MAX_HEADER = 100_000_000  # the library's own limit
_MAX_LINES = 100

_Fields = tuple[str, tuple[int, ...], int, int]  # dtype, shape, begin and end of the data


class ConversionError(Refused):
    """A checkpoint that cannot be read, or a destination that cannot be written; says everything that is wrong.

    Attributes:
      problems: all of them; the message spells out the first hundred.
    """

    def __init__(self, what: str, problems: Iterable[str]):
        self.problems = tuple(problems)
        lines = list(self.problems[:_MAX_LINES])
        if len(self.problems) > _MAX_LINES:
            lines.append(f"and {len(self.problems) - _MAX_LINES} more")
        super().__init__(what + "".join(f"\n  - {line}" for line in lines))


def parse_json(data: bytes) -> Any:
    """JSON in UTF-8, as strict as the standard leaves room for: a key that comes twice is an error.

    Raises:
      ValueError: it is not that, or nested deeper than anything that is read here.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            twice = next(key for i, (key, _) in enumerate(items) if key in dict(items[:i]))
            raise Refused(f"the key {twice!r} comes twice")
        return found

    if data.startswith(codecs.BOM_UTF8):
        raise Refused("it begins with a byte-order mark; save it without one")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=pairs)
    except RecursionError:
        raise Refused("it is nested too deep") from None


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
      ConversionError: not a safetensors file: as strict as the format, whose tensors fill the file from end to end.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER):
            raise ConversionError(f"cannot read {file}", [f"{file.name}: truncated: no whole header in {size} bytes"])
        try:
            header = parse_json(stream.read(length))
            metadata = header.pop("__metadata__", {})
            if not all(type(value) is str for value in metadata.values()):
                raise Refused("its __metadata__ holds other things than texts")
            fields = {name: _fields(name, entry) for name, entry in header.items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            problem = f"{file.name}: its header is not that of a safetensors file ({error!s:.300})"
            raise ConversionError(f"cannot read {file}", [problem]) from None
    start = 8 + length
    problems = []
    for name, (dtype, shape, begin, end) in fields.items():
        what = f"{file.name}: {name} of {dtype}{list(shape)}"
        if not 0 <= begin <= end:
            problems.append(f"{what} lies at bytes {begin} to {end}")
        elif dtype in DTYPES and end - begin != (wanted := math.prod(shape) * DTYPES[dtype].itemsize):
            problems.append(f"{what} has {end - begin} bytes, wanted {wanted}")
    problems = problems or [f"{file.name}: {problem}" for problem in _layout_problems(fields, start, size)]
    if problems:
        raise ConversionError(f"cannot read {file}", problems)
    return {
        name: Entry(file=file, dtype=dtype, shape=shape, begin=start + begin)
        for name, (dtype, shape, begin, _) in fields.items()
    }


def _fields(name: str, entry: dict[str, Any]) -> _Fields:
    """Dtype, shape and byte range of a header's entry."""
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    numbers = (*shape, begin, end)
    if type(dtype) is not str or type(shape) is not list or any(type(number) is not int for number in numbers):
        raise Refused(f"{name}: {entry!s:.200}")
    if any(number < 0 for number in shape):
        raise Refused(f"{name} has shape {shape}")
    return dtype, tuple(shape), begin, end


def _layout_problems(fields: dict[str, _Fields], start: int, size: int) -> Iterator[str]:
    """Tensors that share bytes, bytes that belong to none, and a file that ends elsewhere than its last tensor."""
    ranges = sorted((begin, end, name) for name, (_, _, begin, end) in fields.items())
    covered, last = 0, "the header"
    for begin, end, name in ranges:
        if begin < covered:
            yield f"{name} at bytes {begin} to {end} overlaps {last}, which ends at {covered}"
        elif begin > covered:
            yield f"{begin - covered} bytes between {last} and {name} belong to no tensor"
        if end >= covered:
            covered, last = end, name
    if start + covered > size:
        yield f"truncated: the header promises {start + covered} bytes, the file has {size}"
    elif start + covered < size:
        yield f"{size - start - covered} bytes after {last} belong to no tensor"


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

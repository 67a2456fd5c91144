"""A run's folder: what the run is, the parts that shards have answered, and at the end all answers in order.

    run.json                     what the run is: whatever goes on here must be the same
    parts/0-of-2/lock            held by the process that answers shard 0 of 2
    parts/0-of-2/00000.jsonl     answers, each file whole
    answers.jsonl                all of them, in the order of the prompts

A part comes into being by a renaming and is on the disk before its answers count. Nothing else is ever written: a kill,
a power cut or a full disk costs the answers that were in no part.
"""

import contextlib
import errno
import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

from lrd_jax.durable import open_alone, write_first, write_synced
from lrd_jax.errors import Refused
from lrd_jax.runs.shards import Shard

RUN, PARTS, ANSWERS = "run.json", "parts", "answers.jsonl"
LINE, ERROR, REASON = "line", "error", "stop_reason"  # names in a record that are read back

_SHARE, _SHORTEST, _LONGEST = 1 / 20, 1.0, 60.0  # of the time so far, and in seconds: what a kill may cost
_MOST = 5000  # answers of a part
_OPEN_FILES = 256
_HASHED = ("model", "input")  # of what a run is made of: told by hashes, which nobody typed


class Store:
    """The folder of a run, as one shard of it sees it.

    Attributes:
      done: line -> whether it was answered, complete and without an error; of all shards.
    """

    def __init__(self, folder: Path, shard: Shard, made_of: Mapping[str, Any]):
        """
        Args:
          made_of: what the run's answers depend on, JSON-ready; a run of anything else is refused.
        """
        self.folder, self.shard = folder, shard
        self._made_of = json.loads(json.dumps(made_of))
        self._mine = folder / PARTS / f"{shard.index}-of-{shard.count}"
        self._where: dict[int, tuple[Path, int]] = {}  # line -> part and place in it
        self.done: dict[int, bool] = {}
        self._waiting: list[dict[str, Any]] = []
        self._known: set[Path] = set()  # files whose answers are in `done`

    @property
    def answers(self) -> Path:
        return self.folder / ANSWERS

    def look(self) -> Self:
        """Reads what is there, and writes nothing.

        Raises:
          ValueError: a run of something else, a folder of other things, or a part that is damaged.
        """
        manifest = self.folder / RUN
        if not manifest.exists():
            if self.folder.is_dir() and any(not name.name.startswith(RUN) for name in self.folder.iterdir()):
                raise Refused(f"{self.folder} holds files, and none of a run; name a new or an empty folder")
            return self
        self._require_same(manifest)
        for part in [self.answers] if self.answers.exists() else sorted(self.folder.glob(f"{PARTS}/*/*.jsonl")):
            self._read(part)
        return self

    def left(self, numbers: list[int]) -> list[int]:
        """Those of the lines that have no answer."""
        return [number for number in numbers if number not in self.done]

    @contextlib.contextmanager
    def open(self) -> Iterator[Self]:
        """Holds the shard alone, to answer it; on leaving, however, what has been answered is in a part.

        Raises:
          ValueError: see `look`; or another process holds the shard, or one of the run that is cut otherwise.
        """
        with self._told(RUN):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_first(self.folder / RUN, json.dumps(self._made_of, indent=1) + "\n")
            self._mine.mkdir(parents=True, exist_ok=True)
        with self._alone():
            for left in self._mine.glob("*.part"):
                left.unlink()
            self.look()
            self._began = self._wrote = time.monotonic()
            try:
                yield self
            except BaseException:
                self._write()
                if not self.done:
                    self._forget()
                raise
            self._write()

    def add(self, record: dict[str, Any]) -> None:
        """Takes an answer; it counts once it is in a part, which a kill may prevent."""
        self._waiting.append(record)
        now = time.monotonic()
        pause = min(max(_SHARE * (now - self._began), _SHORTEST), _LONGEST)
        if now - self._wrote > pause or len(self._waiting) >= _MOST:
            self._write()

    def merge(self, numbers: list[int]) -> bool:
        """Writes all answers in the order of their lines, once every line has one; says whether they are there.

        Any number of processes may call it at once: one writes.
        """
        if not (self.folder / PARTS).is_dir():  # a shard without lines, and the first to end
            return False
        with (self.folder / PARTS / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.look()
            if not self.answers.exists() and all(number in self._where for number in numbers):
                with self._told("all answers"):
                    write_synced(self.answers, self._in_order(numbers))
        return self.answers.exists()

    def _forget(self) -> None:
        """Takes away the signs of a run that has answered nothing, unless another shard is at it."""
        (self._mine / "lock").unlink()
        self._mine.rmdir()
        with contextlib.suppress(OSError):
            (self.folder / PARTS).rmdir()
            (self.folder / RUN).unlink()
            self.folder.rmdir()

    def _write(self) -> None:
        if not self._waiting:
            return
        taken = [int(part.stem) for part in self._mine.glob("*.jsonl")]
        part = self._mine / f"{max(taken, default=-1) + 1:05}.jsonl"
        with self._told(f"{len(self._waiting)} answers"):
            write_synced(part, [_encoded(record) for record in self._waiting])
        self._waiting.clear()
        self._read(part)
        self._wrote = time.monotonic()

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            advice = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "put that right"
            raise Refused(
                f"{self.folder}: {what} could not be written: {error.strerror}; {len(self.done)} are safe in parts: "
                f"{advice} and start the same command again"
            ) from error

    def _in_order(self, numbers: list[int]) -> Iterator[bytes]:
        """The lines of the parts; neighbours lie in few of them, so that few are open at a time."""
        files: dict[Path, IO[bytes]] = {}
        try:
            for number in numbers:
                part, place = self._where[number]
                if part not in files and len(files) >= _OPEN_FILES:
                    files.pop(next(iter(files))).close()
                files[part] = file = files.pop(part, None) or part.open("rb")  # the last one used stands last
                file.seek(place)
                yield file.readline()
        finally:
            for file in files.values():
                file.close()

    def _read(self, part: Path) -> None:
        if part in self._known:
            return
        place = 0
        with part.open("rb") as file:
            for count, data in enumerate(file, start=1):
                try:
                    record = json.loads(data)
                    line, good = record[LINE], record[ERROR] is None and record[REASON] != "non-finite"
                except (ValueError, TypeError, KeyError) as error:
                    raise Refused(f"{part}, line {count} is no answer ({error!r}); delete the file") from None
                self._where.setdefault(line, (part, place))
                self.done.setdefault(line, good)
                place += len(data)
        self._known.add(part)

    def _require_same(self, manifest: Path) -> None:
        try:
            there = json.loads(manifest.read_text())
        except ValueError:
            there = None
        if not isinstance(there, dict):
            raise Refused(f"{manifest} is damaged; name another folder")
        asked, there = dict(_flat(self._made_of)), dict(_flat(there))
        if differ := [name for name in there | asked if there.get(name) != asked.get(name)]:
            others = [f"of another {name}" for name in _HASHED if name in differ]
            if told := [name for name in differ if name not in _HASHED]:
                held, got = (", ".join(f"{name}={of.get(name)!r:.80}" for name in told) for of in (there, asked))
                others.append(f"with {held}; asked was {got}")
            raise Refused(f"{self.folder} holds a run {' and '.join(others)}: choose another folder")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            lock = open_alone(self._mine / "lock")
        except Refused:
            raise Refused(f"shard {self.shard} of {self.folder} is being answered by another process") from None
        with lock:
            for other in self.folder.glob(f"{PARTS}/*/lock"):
                if not other.parent.name.endswith(f"-of-{self.shard.count}"):
                    self._require_free(other)
            yield

    def _require_free(self, lock: Path) -> None:
        try:
            with lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # others may look at the same moment
        except BlockingIOError:
            raise Refused(
                f"shard {lock.parent.name.replace('-of-', '/')} of {self.folder} is being answered by another process, "
                f"and shard {self.shard} would answer prompts of its; wait for it, or ask for the same number of shards"
            ) from None


def _encoded(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, ensure_ascii=False) + "\n").encode(errors="replace")


def _flat(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value

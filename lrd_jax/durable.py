"""Files that survive a kill at any moment: written whole or not at all, or JSON lines of one process at a time."""

import contextlib
import errno
import fcntl
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from lrd_jax.errors import Refused
from lrd_jax.files import require_file


def followed(path: Path) -> Path:
    """Where symbolic links lead, so that the link stays and its file is replaced.

    Raises:
      OSError: they lead in a circle.
    """
    end = Path(os.path.realpath(path))
    if end.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return end


def check_writable(folder: Path, name: str) -> None:
    """Raises Refused where files may not be made in a folder that is there.

    Args:
      name: of what is to be written, for the message.
    """
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Refused(f"{name}: {folder} may not be written to; name another folder")


@contextlib.contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """The system says of no file, or of a part of it, that writing has failed: its errors leave with the name."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def write_whole(path: Path, text: str) -> None:
    """Writes a text, in UTF-8 and with its own line ends, over an older file of that name; a kill leaves either.

    Raises:
      ValueError: what stands there is no file, and would be gone.
    """
    require_file(path, "name a file")
    path = followed(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # another process may be writing the same file
    try:
        with naming(path):
            part.write_text(text, encoding="utf-8", newline="")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def open_alone(path: Path) -> IO[bytes]:
    """Opens or creates a file to read and append, for this process alone until it is closed.

    Raises:
      ValueError: another process holds it.
    """
    file = path.open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise Refused(f"{path} is being written by another run; wait for it, or stop it") from error
    return file


def whole_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Numbers, from 1, and contents of a file's lines.

    What a kill left without its end is cut off the file after the last of them: whoever finds a line that is not theirs
    stops before, and leaves the file as it was.
    """
    file.seek(0)
    data = file.read()
    whole = data.rfind(b"\n") + 1
    yield from enumerate(data[:whole].split(b"\n")[:-1], start=1)
    file.truncate(whole)
    file.seek(whole)


def append_lines(file: IO[bytes], lines: list[dict[str, Any]]) -> None:
    """Appends with one write; the lines are with the operating system when it returns."""
    with naming(file.name):
        file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
        file.flush()


def write_synced(path: Path, pieces: Iterable[bytes]) -> None:
    """Writes a file over an older one, whole or not at all; it is on the disk when it returns, power cuts included."""
    part = path.with_name(f"{path.name}.part")
    try:
        _write_out(part, pieces)
        os.replace(part, path)
        _sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def write_first(path: Path, text: str) -> None:
    """Writes a text where no file of that name is, as `write_synced`; of several processes, the first one's stays."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        _write_out(part, [text.encode()])
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
        _sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _write_out(path: Path, pieces: Iterable[bytes]) -> None:
    with naming(path), path.open("wb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Makes a renaming last: it is the folder that holds the name."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Folders that appear whole or not at all, and the files that travel with the weights."""

import contextlib
import gc
import glob
import os
import shlex
import shutil
import signal
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lrd_jax.convert.safetensors_io import ConversionError

_LONGEST_NAME = 255 - len(".partial-01234567")  # bytes that the file systems of Linux leave for a name
_HANDLES = 48  # what tensorstore and Orbax open at once, and half as many again

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
DECODER_FILE = "decoder.toml"  # a preset: what `lrd` is for this model, see `lrd_jax.presets`
SIDE_FILES = (*TOKENIZER_FILES, "generation_config.json", DECODER_FILE)


def as_path(value: Any, name: str) -> Path:
    """A path that was asked for; raises ConversionError for what can be none."""
    if not isinstance(value, str | os.PathLike) or "\0" in os.fsdecode(value):
        raise ConversionError(f"{name}={value!r} is no path", ["give the path of a folder"])
    try:
        os.fsdecode(value).encode()
    except UnicodeEncodeError:  # what writes arrays takes no other names
        raise ConversionError(f"{name}={value!r} is not UTF-8", ["give the path of a folder in UTF-8"]) from None
    return Path(value)


def require_absent(dest: Path) -> None:
    """Raises ConversionError where `dest` exists, or could not."""
    for part in dest.parts:
        if len(os.fsencode(part)) > _LONGEST_NAME:  # the folders above it would be made, and stay
            raise ConversionError(f"{part:.40}...: File name too long", [f"give at most {_LONGEST_NAME} bytes"])
    if dest.exists() or dest.is_symlink():
        raise ConversionError(f"{dest} already exists", ["remove it or choose another destination"])


def require_outside(dest: Path, source: Path) -> None:
    """Raises ConversionError where `dest` would lie in the folder that it is made from."""
    if dest.resolve().is_relative_to(source.resolve()):
        raise ConversionError(f"{dest} would lie inside {source}, which it is made from", ["choose another place"])


@contextlib.contextmanager
def appearing(dest: Path) -> Iterator[Path]:
    """Yields an empty folder beside `dest` that is renamed to it at the end, or removed on an error or a signal to end.

    SIGTERM and SIGHUP end the process as they would have, once the folder is gone. Only SIGKILL leaves
    `<dest>.partial-*` behind, never `dest`; the next run removes it.
    """
    require_absent(dest)
    _require_handles()
    missing = [folder for folder in (dest.parent, *dest.parent.parents) if not folder.exists()]
    dest.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(dest)
    work = dest.with_name(f"{dest.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        work.mkdir()
    except OSError as error:
        error.filename = str(dest)  # the name that was asked for
        raise
    try:
        with _raising_signals(), _held(work):
            yield work
            require_absent(dest)
            work.rename(dest)
    except BaseException as error:
        _remove(work)
        for folder in missing:  # the inmost first; one that others have used meanwhile stays
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(dest)  # a full disk does not say where
        if isinstance(error, _Ended):
            os.kill(os.getpid(), error.signum)
        raise


def _require_handles() -> None:
    """Raises ConversionError where so few files may be opened that the last step could fail, hours after the first."""
    with contextlib.ExitStack() as opened:
        try:
            for _ in range(_HANDLES):
                opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            advice = f"a conversion wants {_HANDLES} at once: allow more with ulimit -n, or close some"
            raise ConversionError("too few file handles are left", [str(error), advice]) from error


class _Ended(BaseException):
    """A signal that would have ended the process."""

    def __init__(self, signum: int):
        self.signum = signum
        super().__init__(signal.Signals(signum).name)


@contextlib.contextmanager
def _raising_signals() -> Iterator[None]:
    """Makes an exception of the signals that would end the process at once; leaves alone what others handle."""

    def end(signum: int, frame: object) -> None:
        raise _Ended(signum)

    kinds = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ours = [kind for kind in kinds if signal.getsignal(kind) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        ours = []  # Python allows it there alone
    for kind in ours:
        signal.signal(kind, end)
    try:
        yield
    finally:
        for kind in ours:
            signal.signal(kind, signal.SIG_DFL)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Holds a lock on a folder that the system lets go of when the process ends, however it ends."""
    handle = None
    with contextlib.suppress(OSError, ImportError):  # a system or file system without: leftovers are only named there
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _remove_leftovers(dest: Path) -> None:
    """Removes what killed runs left of `dest`; what may be another run's is named and left."""
    for folder in sorted(dest.parent.glob(f"{glob.escape(dest.name)}.partial-*")):
        if _is_free(folder):
            _remove(folder)
            print(f"removed {folder}, which a run that was killed had left", file=sys.stderr)
        else:
            advice = f"if that was killed: rm -r {shlex.quote(str(folder))}"
            print(f"{folder} belongs to another run; {advice}", file=sys.stderr)


def _is_free(folder: Path) -> bool:
    """Whether certainly no run holds the folder: it can be locked, and is not one that was made a moment ago."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (OSError, ImportError):
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return bool(os.listdir(folder))
    except OSError:
        return False
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """Removes a folder, with a single file handle at a time, for there may be too few."""
    gc.collect()  # arrays of a failed write hold files open
    for inner, folders, files in os.walk(folder, topdown=False):
        for name in files:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(inner, name))
        for name in folders:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(inner, name))
    with contextlib.suppress(OSError):
        folder.rmdir()


def require_files(names: tuple[str, ...], folder: Path) -> None:
    """Raises ConversionError where one of the named is there and is no file: a link that leads nowhere, for one."""
    strange = [name for name in names if os.path.lexists(folder / name) and not (folder / name).is_file()]
    if strange:
        raise ConversionError(f"{folder} has what cannot be copied:", [f"{name} is no file" for name in strange])


def copy_files(names: tuple[str, ...], source: Path, dest: Path) -> None:
    """Copies those of the named files that `source` has."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, dest / name)

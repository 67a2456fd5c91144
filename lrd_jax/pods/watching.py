"""A process that fails or dies ends the others, with one message, also while they are inside a program.

JAX by itself ends them by an abort with a stack trace, once the heartbeat is over; that stays behind this.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from jax._src.distributed import global_state
from jax.errors import JaxRuntimeError

from lrd_jax.pods.agreement import GONE, ROOT, Failure, PeerFailed, failures, tell_failure
from lrd_jax.pods.connecting import heartbeat_of

_ALIVE = f"{ROOT}/alive"
_DONE = "done"
_PATIENCE = 0.5  # of the heartbeat: before JAX's own abort
_PROBE_MS = 1000


@contextlib.contextmanager
def watched(lost: Callable[[PeerFailed], None]) -> Iterator[None]:
    """While the context is open, calls `lost` with what happened once another process has failed or is gone.

    Args:
      lost: called from a thread of its own with what a wait would have raised; it ends this process.
    """
    if global_state.client is None:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(ended, lost), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(ended: threading.Event, lost: Callable[[PeerFailed], None]) -> None:
    client, process = global_state.client, global_state.process_id
    patience = _PATIENCE * heartbeat_of()
    heard: dict[str, tuple[str, float]] = {}  # of each process: its last beat, and when it was new
    beats, answered = 0, time.monotonic()
    while True:
        over = ended.wait(min(1.0, patience / 10))
        beats += 1
        try:
            if process and beats > 1 and not over:  # other calls have no limit where the network is gone
                client.blocking_key_value_get(f"{_ALIVE}/{process}", _PROBE_MS)
            client.key_value_set(f"{_ALIVE}/{process}", _DONE if over else str(beats), allow_overwrite=True)
            if over:
                return
            found = {number: failure for number, failure in failures().items() if number != process}
            if process == 0:
                silent = _silent(heard, dict(client.key_value_dir_get(_ALIVE)), patience)
                for number in silent:
                    found[number] = Failure(f"it was not heard of for {patience:.0f} s", GONE, False)
                    tell_failure(found[number], number)
            answered = time.monotonic()
        except JaxRuntimeError:
            if over:
                return
            if time.monotonic() - answered < patience:
                continue
            found = {0: Failure(f"it did not answer for {patience:.0f} s", GONE, False)}
        if found:
            number = min(found)
            lost(PeerFailed(number, found[number]))
            return


def _silent(heard: dict[str, tuple[str, float]], beats: dict[str, str], patience: float) -> list[int]:
    """Processes whose beat is not new, and has not been for so long."""
    now = time.monotonic()
    for key, beat in beats.items():
        if key not in heard or heard[key][0] != beat:
            heard[key] = (beat, now)
    return [
        int(key.rpartition("/")[2]) for key, (beat, since) in heard.items() if beat != _DONE and now - since > patience
    ]

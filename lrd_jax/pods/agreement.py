"""What processes tell each other beside arrays: by JAX's coordination service, without a device.

Every process must come to the same calls in the same order. Who waits here for a process that has failed hears of it.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from jax._src.distributed import global_state  # the service that Orbax and JAX itself meet by
from jax.errors import JaxRuntimeError

from lrd_jax.errors import Refused, check_function

ROOT, FAILED = "lrd_jax", "lrd_jax/failed"
GONE = 1  # status of a process that did not say why it ended
_POLL_MS = 1000
_WORDS = 60  # characters of a value in a message
_NAMED = 5  # differences in a message

_calls = 0
_own: list[str] = []  # keys of this process that may still be read


class Failure(NamedTuple):
    """Why a process ended, in words for people, and with which status; whether it said so itself."""

    words: str
    status: int
    told: bool = True


class PeerFailed(Refused):
    """Another process of the program failed, and has told why."""

    def __init__(self, process: int, failure: Failure):
        super().__init__(f"process {process} ended: {failure.words}")
        self.status = failure.status
        self.told = failure.told


def is_first() -> bool:
    """Whether this process prints and writes: process 0, or the only one."""
    return not global_state.process_id


def process_of() -> int | None:
    """The number of this process; None of one that is alone."""
    return None if _alone() else global_state.process_id


def agree(what: str, facts: Mapping[str, Any]) -> None:
    """Refuses facts that are not equal on all processes; does nothing in a process that is alone.

    Args:
      what: they are of.
      facts: what JSON can hold, by name.

    Raises:
      ValueError: on every process: the names that differ, and who has which value.
    """
    if _alone():
        return
    call = _next_call()
    told = {"what": what, **facts}
    digest = _digest(told)
    if len(set(_exchanged(f"{call}/digest", digest))) > 1:
        everyone = [json.loads(text) for text in _exchanged(f"{call}/facts", _dumped(_named(told)))]
        raise Refused(_difference(what, everyone))
    _forget(f"{ROOT}/{call}/")


def from_first(produce: Callable[[], Any]) -> Any:
    """What `produce` gives on process 0, which runs it alone: a value that JSON can hold.

    Raises:
      ValueError: on every process, what `produce` refuses.
    """
    check_function(produce, "produce")
    if _alone():
        return produce()
    key = f"{ROOT}/{_next_call()}"
    if is_first():
        try:
            value = produce()
        except Refused as error:
            _set(key, _dumped({"refused": str(error)}))
            raise
        _set(key, _dumped({"value": value}))
        return value
    told = json.loads(_get(key))
    if "refused" in told:
        raise Refused(told["refused"])
    return told["value"]


def tell_failure(failure: Failure, process: int | None = None) -> None:
    """Tells the others, where they wait in a function above, that this process ends with an error, or `process` has."""
    if not _alone():
        number = global_state.process_id if process is None else process
        global_state.client.key_value_set(f"{FAILED}/{number}", _dumped(failure), allow_overwrite=True)


def failures() -> dict[int, Failure]:
    """What the processes told that failed, by their numbers."""
    told = global_state.client.key_value_dir_get(FAILED)
    return {int(key.rpartition("/")[2]): Failure(*json.loads(failure)) for key, failure in told}


def meet(name: str, seconds: float) -> bool:
    """Waits for all processes; False where they did not come in time."""
    if _alone():
        return True
    try:
        global_state.client.wait_at_barrier(f"{ROOT}/{name}", int(seconds * 1000))
    except JaxRuntimeError:
        return False
    return True


def _alone() -> bool:
    return global_state.client is None


def _next_call() -> int:
    global _calls
    _calls += 1
    return _calls


def _exchanged(key: str, text: str) -> list[str]:
    """The texts of all processes, by their number."""
    _set(f"{ROOT}/{key}/{global_state.process_id}", text)
    return [_get(f"{ROOT}/{key}/{process}") for process in range(global_state.num_processes)]


def _set(key: str, text: str) -> None:
    global_state.client.key_value_set_bytes(key, text.encode())
    _own.append(key)


def _get(key: str) -> str:
    """Waits without a limit: a process that dies ends all others, and one that fails says so."""
    while True:
        try:
            return global_state.client.blocking_key_value_get_bytes(key, _POLL_MS).decode()
        except JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        if failed := failures():
            process = min(failed)
            raise PeerFailed(process, failed[process])


def _forget(current: str) -> None:
    """Takes back what everyone has read: all came to this call, and so had ended the ones before."""
    for key in [key for key in _own if not key.startswith(current)]:
        global_state.client.key_value_delete(key)
        _own.remove(key)


def _named(told: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """A digest of each fact, and words for people."""
    return {name: (_digest(value), _words(value)) for name, value in told.items()}


def _difference(what: str, everyone: list[Mapping[str, tuple[str, str]]]) -> str:
    nothing = ("", "nothing")
    said = []
    for name in dict.fromkeys(name for named in everyone for name in named):
        holders: dict[str, list[int]] = {}
        for process, named in enumerate(everyone):
            holders.setdefault(named.get(name, nothing)[0], []).append(process)
        if len(holders) > 1:
            who = [
                f"{everyone[processes[0]].get(name, nothing)[1]} on {_processes(processes)}"
                for processes in holders.values()
            ]
            said.append(f"{name} is {', '.join(who)}")
    more = f"; and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
    return f"the processes differ in their {what}: {'; '.join(said[:_NAMED])}{more}; give all of them the same"


def _processes(numbers: Iterable[int]) -> str:
    numbers = list(numbers)
    return f"process{'es' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _words(value: Any) -> str:
    text = value if isinstance(value, str) else _dumped(value)
    return text if len(text) <= _WORDS else f"{text[: _WORDS - 16]}... ({_digest(value)[:10]})"


def _digest(value: Any) -> str:
    return hashlib.sha256(_dumped(value).encode()).hexdigest()


def _dumped(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)

"""What processes tell each other, where there is one, and with a coordination service that is a dictionary."""

import json
import threading

import pytest
from jax._src.distributed import global_state
from jax.errors import JaxRuntimeError

from lrd_jax.errors import Refused
from lrd_jax.options import mesh_sizes
from lrd_jax.pods import agree, agreement, from_first, is_first, watching
from lrd_jax.sharding import mesh_asked


class Service:
    """The part of JAX's client that is used, for all processes."""

    def __init__(self):
        self.held = {}

    def key_value_set(self, key, value, allow_overwrite=False):
        assert allow_overwrite or key not in self.held
        self.held[key] = value

    def key_value_set_bytes(self, key, value):
        self.key_value_set(key, value)

    def key_value_delete(self, key):
        del self.held[key]

    def blocking_key_value_get(self, key, timeout_ms):
        if key not in self.held:
            raise JaxRuntimeError("DEADLINE_EXCEEDED")
        return self.held[key]

    blocking_key_value_get_bytes = blocking_key_value_get

    def key_value_dir_get(self, folder):
        return [(key, value) for key, value in self.held.items() if key.startswith(f"{folder}/")]


@pytest.fixture
def service(monkeypatch):
    """This is process 1 of 2; process 0 is played by what stands in the service."""
    service = Service()
    for name, value in (("client", service), ("process_id", 1), ("num_processes", 2)):
        monkeypatch.setattr(global_state, name, value)
    monkeypatch.setattr(agreement, "_calls", 0)
    monkeypatch.setattr(agreement, "_own", [])
    return service


def told(facts, what="facts"):
    return {"what": what, **facts}


def test_alone_nothing_is_compared():
    agree("facts", {"a": object()})
    assert from_first(lambda: 3) == 3
    assert is_first() and agreement.process_of() is None and agreement.meet("here", 0)
    with watching.watched(pytest.fail):
        pass


def test_equal_facts_pass_and_are_forgotten(service):
    for call in (1, 2):
        service.held[f"lrd_jax/{call}/digest/0"] = agreement._digest(told({"a": [1, 2]})).encode()
        agree("facts", {"a": (1, 2)})
    assert sorted(service.held) == ["lrd_jax/1/digest/0", "lrd_jax/2/digest/0", "lrd_jax/2/digest/1"]


def test_what_differs_is_named_with_who_has_it(service):
    theirs = told({"a": 1, "b": "x" * 100, "c": 5})
    service.held["lrd_jax/1/digest/0"] = agreement._digest(theirs).encode()
    service.held["lrd_jax/1/facts/0"] = json.dumps(agreement._named(theirs)).encode()
    with pytest.raises(Refused) as error:
        agree("facts", {"a": 1, "b": "x" * 99, "c": 5, "d": 6})
    said = str(error.value)
    assert said.startswith("the processes differ in their facts: b is " + "x" * 44 + "...")
    assert "; d is nothing on process 0, 6 on process 1; give all of them the same" in said
    assert "c is" not in said


def test_a_process_that_waits_hears_of_one_that_failed(service):
    service.held["lrd_jax/failed/0"] = '["the file is not there", 2]'
    with pytest.raises(agreement.PeerFailed, match=r"^process 0 ended: the file is not there$") as error:
        from_first(pytest.fail)
    assert error.value.status == 2


def test_the_others_hear_what_process_0_gives_or_refuses(service):
    service.held["lrd_jax/1"] = b'{"value": [1, "a"]}'
    service.held["lrd_jax/2"] = b'{"refused": "no"}'
    assert from_first(pytest.fail) == [1, "a"]
    with pytest.raises(Refused, match=r"^no$"):
        from_first(pytest.fail)


def test_a_failure_is_heard_during_other_work(service, monkeypatch):
    monkeypatch.setenv("LRD_JAX_HEARTBEAT_SECONDS", "1")
    heard, lost = threading.Event(), []
    with watching.watched(lambda failure: (lost.append((str(failure), failure.status)), heard.set())):
        service.held["lrd_jax/failed/0"] = '["no room", 2]'
        assert heard.wait(20)
    assert lost == [("process 0 ended: no room", 2)]


def test_process_0_hears_of_one_that_is_silent(service, monkeypatch):
    monkeypatch.setattr(global_state, "process_id", 0)
    monkeypatch.setenv("LRD_JAX_HEARTBEAT_SECONDS", "2")
    heard, lost = threading.Event(), []
    service.held |= {"lrd_jax/alive/1": "7", "lrd_jax/alive/2": "done"}
    with watching.watched(lambda failure: (lost.append((str(failure), failure.status)), heard.set())):
        assert heard.wait(20)
    assert lost == [("process 1 ended: it was not heard of for 1 s", 1)]
    assert json.loads(service.held["lrd_jax/failed/1"]) == ["it was not heard of for 1 s", 1, False]


def test_a_mesh_is_read():
    assert mesh_sizes("data=2, tensor=4") == {"data": 2, "tensor": 4}
    assert dict(mesh_asked("tensor=2,data=4").shape) == {"data": 4, "fsdp": 1, "tensor": 2}
    assert mesh_asked(None) is None


@pytest.mark.parametrize("text", ["", "data", "data=0", "data=2,data=2", "model=2", "data=2;tensor=2", "data=-1"])
def test_what_is_no_mesh_is_refused(text):
    with pytest.raises(Refused, match="give sizes of data, fsdp, tensor, each at most once, as in"):
        mesh_sizes(text)

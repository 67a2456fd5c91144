"""One set of engines for all, and a server of them for each module."""

import pytest
from byte_model import write_byte_model

from lrd_jax import load


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Random weights over bytes, with LLaDA's chat tokens."""
    return write_byte_model(tmp_path_factory.mktemp("bytes"), chat=True, max_length=256)


@pytest.fixture(scope="session")
def loaded(folder):
    return load(folder)


@pytest.fixture(scope="session")
def desk(loaded):
    """lrd and fast, canvases of 8 and 32, three slots each."""
    from serving import OPTIONS, Desk

    desk = Desk(OPTIONS, loaded, "bytes")
    yield desk
    desk.close(drain=False)


@pytest.fixture(scope="module")
def server(desk):
    from serving import started

    running = started(desk)
    yield running
    running.end()

"""A server whose model lies on a mesh of devices."""

import jax
import numpy as np
import pytest
from serving import Desk, started

from lrd_jax import DecodeConfig, Generator, load
from lrd_jax.labels import score_labels
from lrd_jax.serve.options import Serve
from lrd_jax.sharding import make_mesh

pytestmark = pytest.mark.slow

PROMPT = "The second prompt is longer."


def test_it_answers_as_one_device_does(folder, loaded):
    meshed = load(folder, make_mesh(data=2, devices=jax.devices()[:2]))
    desk = Desk(Serve(model="bytes", gen_length=8, canvas=(8,), prompt_length=(32,), slots=2), meshed, "bytes")
    server = started(desk)
    generator = Generator(loaded, DecodeConfig.lrd(8))
    (wanted,) = generator.generate([PROMPT])
    (choice,) = server.post("/v1/completions", {"prompt": PROMPT}).json()["choices"]
    assert choice["text"] == wanted.text
    own = {"labels": ["yes", "no"]}
    (choice,) = server.post("/v1/completions", {"prompt": PROMPT, "lrd": own}).json()["choices"]
    told = [label["logprob"] for label in choice["lrd"]["labels"]]
    assert np.allclose(told, [label.logprob for label in score_labels(generator, PROMPT, own["labels"])], atol=1e-4)
    server.end()
    desk.close()

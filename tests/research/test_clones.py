"""Clones of the repositories of caches, small stand-ins here: which code is theirs, and how it is called."""

import sys

import numpy as np
import pytest
from goldens import GOLDEN

from lrd_jax.cli import USER_ERROR, compile_cache, main
from lrd_jax.errors import Refused
from lrd_jax.research.timing.clones import KINDS, pair_up
from lrd_jax.research.timing.decoders import Canvas
from lrd_jax.research.timing.reference import COUNTERPARTS, Reference

CANVAS = Canvas(gen_length=8, block_length=4, steps=4, threshold=0.9)
PROMPT = np.array([[1, 2, 3]])
SPARSE_FOLDER = "opencompass/models/sparse_dllm"
ANSWER = [[7, 6, 5, 4, 3, 2, 1, 0]]

TORCH = """
import numpy as np
__version__, float32 = "stub", "float32"
def set_num_threads(n): assert n > 0
class Tensor(np.ndarray):
    def to(self, device): return self
    def cpu(self): return self
    def narrow(self, dim, begin, length): return np.take(self, np.arange(begin, begin + length), dim)
def tensor(values): return np.asarray(values).view(Tensor)
def sort(values, dim, descending, stable):
    at = np.argsort(-values, axis=dim, kind="stable" if stable else None)
    return np.take_along_axis(values, at, dim).view(Tensor), at.view(Tensor)
def topk(values, k, dim): raise AssertionError("takes any of equals")
"""
MODELING = """
import torch
from types import SimpleNamespace as Any
class LLaDAModelLM:
    @classmethod
    def from_pretrained(cls, folder, torch_dtype):
        self = cls()
        block = Any(forward=lambda x, block_mask=None: "as it was")
        self.config = Any()
        self.model = Any(config=Any(), transformer=Any(blocks=[block]))
        return self
    def to(self, device): return self
    def eval(self): return self
    def __call__(self, ids):
        return [block.forward(ids, block_mask=None) for block in self.model.transformer.blocks]
    def most(self, importance): return torch.topk(importance, k=2, dim=-1)[1].tolist()
"""
STEPS = f"""
import numpy as np
from {{package}} import LLaDAModelLM
def _answer(model, ids, steps, gen_length, block_length, temperature, mask_id):
    assert isinstance(model.model, LLaDAModelLM)
    assert (steps, gen_length, block_length, temperature, mask_id) == (4, 8, 4, 0.0, 9)
    said = [model(ids) for _ in range(steps)]
    return np.concatenate([ids, np.array({ANSWER})], 1).view(type(ids)), said[-1]
"""
DLLM = """
from dllm_cache.cache import CACHE
def generate(input_ids, attention_mask, model, **kw):
    assert attention_mask is None
    assert CACHE == {"prompt_interval_steps": 50, "gen_interval_steps": 7, "transfer_ratio": 0.25}, CACHE
    answer, said = _answer(model, input_ids, **kw)
    assert said == ["hooked"]
    return answer
"""
DLLM_CACHE = """
CACHE = {}
class dLLMCache:
    new_instance = staticmethod(CACHE.update)
"""
DLLM_HOOKS = """
def register_cache_LLaDA(model, name):
    assert name == "model.transformer.blocks"
    for block in model.model.transformer.blocks:
        block.forward = lambda x, use_cache=False: "hooked"
"""
SPARSE = """
from torch import tensor
def generate(model, prompt, **kw):
    assert vars(model.config) == vars(model.model.model.config) == dict(block_len=4, kernel_size=3, keep_ratio=0.5)
    assert model.most(tensor([[1, 3, 1, 1]])) == [[1, 0]]
    return _answer(model, prompt, **kw)[0]
"""
DKV = """
def generate(model, tokenizer, prompt, enable_cache=False, cache_reloading_step=1, **kw):
    assert (tokenizer, enable_cache, cache_reloading_step) == (None, True, 8)
    return _answer(model, prompt, **kw)[0]
"""


def steps(package):
    return STEPS.replace("{package}", package)


CLONES = {
    "dllm": {
        "utils/generate_function.py": steps("model.modeling_llada") + DLLM,
        "mmada_models/modeling_llada.py": MODELING,
        "dllm_cache/cache.py": DLLM_CACHE,
        "dllm_cache/hooks.py": DLLM_HOOKS,
    },
    "sparse": {
        "opencompass/models/sparse_dllm/llada_generate.py": steps(".modeling_llada") + SPARSE,
        "opencompass/models/sparse_dllm/modeling_llada.py": MODELING,
    },
    "dkv": {
        "generation_utils/llada_dkv_cache_decode.py": steps("models.modeling_llada_dkv_cache_decode") + DKV,
        "models/modeling_llada_dkv_cache_decode.py": MODELING,
    },
}


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """Writes the clone that answers to a decoder, for a Python whose torch is a stand-in."""
    write(tmp_path / "site", {"torch.py": TORCH, "transformers.py": "__version__ = 'stub'"})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setattr(compile_cache, "use_compile_cache", lambda: None)
    return lambda decoder: write(tmp_path / decoder, CLONES[decoder])


def counterparts(reference):
    return [counterpart for counterpart in COUNTERPARTS if reference.can(counterpart)]


@pytest.mark.slow
@pytest.mark.parametrize("decoder", CLONES)
def test_a_clone_is_told_what_its_decoder_is_and_called_as_it_asks(clone, tmp_path, decoder):
    (found,) = pair_up([clone(decoder)])
    with Reference(found, sys.executable) as reference:
        (counterpart,) = counterparts(reference)
        assert counterpart.decoder == decoder
        reference.load(tmp_path, "float32", CANVAS)
        run = reference.run(counterpart.function, PROMPT, counterpart.arguments(CANVAS, mask_id=9))
    assert (run.tokens, run.forwards) == (ANSWER, 4)
    assert run.seconds > 0


def test_modeling_code_is_lent_to_those_alone_that_can_run_it(clone, tmp_path):
    dllm, sparse = clone("dllm"), clone("sparse")
    (dllm / "mmada_models" / "modeling_llada.py").unlink()
    released = write(tmp_path / "released", {"modeling_llada.py": MODELING})
    assert [found.modeling.parent for found in pair_up([dllm, sparse, released])] == [released, sparse / SPARSE_FOLDER]
    (sparse / SPARSE_FOLDER / "modeling_llada.py").unlink()
    with pytest.raises(Refused, match=r"has no modeling_llada\.py: name a whole clone of Sparse-dLLM"):
        pair_up([sparse, released])


def test_every_kind_has_a_counterpart():
    assert {counterpart.kind.name for counterpart in COUNTERPARTS} == {kind.name for kind in KINDS}


def refused(capsys, *args):
    assert main(["bench", "--gen-length", "8", "--repeats", "1", *map(str, args)]) == USER_ERROR
    return capsys.readouterr().err


@pytest.mark.slow
def test_a_cache_is_compared_with_its_own_code_alone(clone, capsys):
    err = refused(capsys, "--decoders", "llada", "sparse", "--reference", clone("dkv"))
    assert "has no function that does what llada, sparse do; of the decoders it can be compared with dkv" in err


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["dllm", "dkv"])
def test_code_without_grouped_heads_is_not_run_on_them(clone, capsys, decoder):
    model = ("--model", GOLDEN / "tiny-llada-gqa", "--decoders", decoder)
    assert "wants keys for each of the 4 heads; this model has 2" in refused(
        capsys, *model, "--reference", clone(decoder)
    )

"""The benchmark: what it measures, what it refuses, and references, here small stand-ins for PyTorch's."""

import json
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from lrd_jax import cli
from lrd_jax.cli import compile_cache, main
from lrd_jax.decoding.loop import make_decode
from lrd_jax.models import Model
from lrd_jax.models.transformer import positions_of
from lrd_jax.research.timing import measure
from lrd_jax.research.timing.decoders import DECODERS, Canvas
from lrd_jax.research.timing.measure import Run, Spread, Subject, in_turns
from lrd_jax.research.timing.reference import COUNTERPARTS
from lrd_jax.research.timing.report import engine_tables
from lrd_jax.research.timing.sizes import random_params, random_prompts, sized, special_ids

pytestmark = pytest.mark.slow  # compiles and references of its own

CONFIG = sized("small", vocab_size=64, num_layers=1, embed_dim=32, mlp_dim=64, num_heads=2)
SIZES = ("--vocab-size", "64", "--num-layers", "1", "--embed-dim", "32", "--mlp-dim", "64", "--num-heads", "2")
LENGTHS = ("--prompt-length", "4", "--gen-length", "8", "--repeats", "2")
SMALL = ("bench", *SIZES, *LENGTHS)


@pytest.fixture(autouse=True)
def no_compile_cache(monkeypatch):
    """The cache is a setting of the whole process."""
    monkeypatch.setattr(compile_cache, "use_compile_cache", lambda: None)


# What is measured.


def test_json_tells_of_every_decoder(capsys):
    assert main([*SMALL, "--json", "--decoders", "plain", "lrd", "--steps", "4", "--batch", "2"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert [found["decoder"] for found in result["decoders"]] == ["plain", "lrd"]
    for found in result["decoders"]:
        assert found["tokens"] == 16
        assert found["seconds"]["low"] <= found["seconds"]["median"] <= found["seconds"]["high"]
        assert found["tokens_per_second"] == pytest.approx(16 / found["seconds"]["median"])
        each = found["seconds_per_forward"]["median"]
        assert each == pytest.approx(found["seconds"]["median"] / found["forwards"])
        assert found["compile_seconds"] > 0
        assert found["compiled_memory_bytes"] > 4 * result["parameters"]
    assert result["decoders"][0]["forwards"] == 4
    assert result["references"] == []
    assert err == ""


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_fits_a_canvas_in_blocks(name):
    config = DECODERS[name](Canvas(gen_length=32, block_length=16, steps=8, threshold=0.7))
    assert (config.gen_length, config.num_blocks) == (32, 2)


def test_every_counterpart_answers_to_a_decoder():
    assert {counterpart.decoder for counterpart in COUNTERPARTS} <= set(DECODERS)


def test_a_spread_is_a_median_and_a_range():
    assert Spread.of([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0)


def test_tokens_are_counted_to_the_first_end_of_each_row():
    subject = object.__new__(Subject)
    subject._special = CONFIG
    end = CONFIG.eos_id
    subject.first = Run([[1, 2, end, 3], [end, 1, 2, 3], [1, 2, 3, 4]], forwards=1, seconds=1.0)
    assert subject.generated == 6


def test_the_devices_own_count_of_memory_goes_first(monkeypatch):
    assert measure.peak_memory()["counted"] == "resident set of the process"
    device = SimpleNamespace(memory_stats=lambda: {"peak_bytes_in_use": 7})
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert measure.peak_memory() == {"bytes": 7, "counted": "device memory"}


# Random models.


def logits_of(logit_std):
    params = random_params(CONFIG, dtype="float32", logit_std=logit_std, seed=0)
    ids = jnp.asarray(random_prompts(CONFIG, 4, 32, seed=0))
    mask = jnp.ones(ids.shape, bool)
    model = Model(CONFIG)
    return model.logits(params, model.hidden(params, model.embed(params, ids), positions_of(mask), mask))


def test_random_logits_are_as_sure_as_asked_and_never_name_a_special_token():
    logits = logits_of(5.0)
    words = np.setdiff1d(np.arange(64), special_ids(CONFIG))
    assert jnp.std(logits[..., words]) == pytest.approx(5.0, rel=0.1)
    assert not np.isin(np.argmax(logits, -1), special_ids(CONFIG)).any()


def test_random_prompts_hold_no_special_token():
    prompts = random_prompts(CONFIG, 3, 200, seed=1)
    assert prompts.shape == (3, 200)
    assert set(np.unique(prompts)) == set(range(64)) - set(special_ids(CONFIG))


def test_sizes_keep_what_is_not_changed():
    released = sized("dream-7b-base")
    halved = sized("dream-7b-base", num_heads=14, embed_dim=1792)
    assert (halved.num_kv_heads, halved.vocab_size, halved.mask_id) == (2, released.vocab_size, released.mask_id)
    assert special_ids(sized("dream-7b-base", vocab_size=100)) == [98, 99]


# References.

TORCH = """
import numpy as np
__version__, float32 = "stub", "float32"
def set_num_threads(n): assert n > 0
class Tensor(np.ndarray):
    def to(self, device): return self
    def cpu(self): return self
def tensor(values): return np.asarray(values).view(Tensor)
"""
MODELING = """
from pathlib import Path
class LLaDAModelLM:
    @classmethod
    def from_pretrained(cls, folder, torch_dtype):
        assert (Path(folder) / "config.json").is_file() and torch_dtype == "float32"
        return cls()
    def to(self, device): return self
    def eval(self): return self
    def __call__(self, ids): pass
"""
GENERATE = """
import json
from pathlib import Path
import numpy as np
from model.modeling_llada import LLaDAModelLM
def generate(model, prompt, steps=8, gen_length=8, block_length=8, temperature=0.0, mask_id=0):
    assert isinstance(model.model, LLaDAModelLM)
    print("clones may print")
    for _ in range(steps):
        model(prompt)
    answer = np.array(json.loads(Path(__file__).with_name("answer.json").read_text()))
    return np.concatenate([prompt, answer], 1).view(type(prompt))
"""


@pytest.fixture(scope="module")
def answer():
    """What the decoder `llada` says to the prompts of SMALL."""
    canvas = Canvas(gen_length=8, block_length=None, steps=8, threshold=0.9)
    decode = make_decode(Model(CONFIG), DECODERS["llada"](canvas))
    params = random_params(CONFIG, dtype="float32", logit_std=None, seed=0)
    return decode(params, random_prompts(CONFIG, 1, 4, seed=0)).tokens.tolist()


@pytest.fixture
def clone(tmp_path, monkeypatch, answer):
    """A clone whose generate gives that answer, for a Python whose torch is a stand-in."""
    files = {
        "site/torch.py": TORCH,
        "site/transformers.py": "__version__ = 'stub'",
        "clone/generate.py": GENERATE,
        "clone/answer.json": json.dumps(answer),
        "clone/model/modeling_llada.py": MODELING,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    return tmp_path / "clone"


def compare(*references, decoder="llada"):
    return main([*SMALL, "--decoders", decoder, "--reference", *map(str, references)])


def test_a_reference_that_agrees_is_measured_beside_the_decoder(clone, capsys):
    assert main([*SMALL, "--json", "--decoders", "plain", "llada", "--reference", str(clone)]) == 0
    result = json.loads(capsys.readouterr().out)
    (found,) = result["references"]
    assert (found["reference"], found["function"], found["decoder"]) == ("clone", "generate", "llada")
    assert (found["forwards"], found["tokens_agree"], found["first_difference"]) == (8, True, None)
    assert found["ratio"]["low"] <= found["ratio"]["median"] <= found["ratio"]["high"]
    assert found["ratio_per_forward"] == pytest.approx(found["ratio"])
    assert result["machine"]["versions"]["clone: torch"] == "stub"
    assert "torch" not in sys.modules


def test_a_reference_of_other_tokens_is_told_and_by_the_exit_status_too(clone, answer, capsys):
    other = [[*answer[0][:5], (answer[0][5] + 1) % 60, *answer[0][6:]]]
    (clone / "answer.json").write_text(json.dumps(other))
    assert compare(clone) == cli.INCOMPLETE
    out, err = capsys.readouterr()
    assert "DIFFER" in out
    assert "clone's generate and llada decode different tokens, first at row 0, position 5" in err


def test_modeling_code_may_come_from_another_folder(clone, tmp_path, capsys):
    (clone / "model").rename(tmp_path / "released-1.5")
    assert compare(clone, tmp_path / "released-1.5") == 0
    assert "agree" in capsys.readouterr().out


def refused(capsys, *args):
    """The message of a command that must end with status 2."""
    assert main(["bench", *args]) == cli.USER_ERROR
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    return err


def refused_reference(capsys, *references, **options):
    assert compare(*references, **options) == cli.USER_ERROR
    return capsys.readouterr().err


def test_a_python_without_torch_is_told_what_to_install(clone, tmp_path, capsys):
    (tmp_path / "site" / "torch.py").write_text("raise ModuleNotFoundError('no torch', name='torch')")
    err = refused_reference(capsys, clone)
    assert f"reference clone needs torch, which {sys.executable} lacks" in err
    assert "pip install torch" in err
    assert "--reference-python" in err


def test_what_a_reference_raises_is_told(clone, capsys):
    (clone / "generate.py").write_text(GENERATE.replace("print(", "raise RuntimeError("))
    assert "reference clone failed: RuntimeError: clones may print" in refused_reference(capsys, clone)


def test_a_reference_that_dies_is_told_with_its_last_words(clone, capsys):
    words = "import os, sys; sys.stderr.write('out of memory\\n'); sys.stderr.flush(); os._exit(9)"
    (clone / "generate.py").write_text(words)
    assert "reference clone ended" in (err := refused_reference(capsys, clone))
    assert "out of memory" in err


def test_a_clone_without_modeling_code_is_refused(clone, capsys):
    (clone / "model" / "modeling_llada.py").unlink()
    assert "has no modeling_llada.py: name a folder that has one too" in refused_reference(capsys, clone)


def test_a_clone_that_can_do_nothing_of_it_is_refused(clone, capsys):
    err = refused_reference(capsys, clone, decoder="threshold")
    assert "has no function that does what threshold do; of the decoders it can be compared with llada" in err


def test_a_folder_that_is_no_clone_is_refused(tmp_path, capsys):
    assert "has no generate.py and no modeling_llada.py" in refused_reference(capsys, tmp_path)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--decoders", "best"], "decoders=best is unknown; choose among plain, llada"),
        (["--sizes", "huge"], "sizes='huge' is unknown; choose one of small, llada-8b-base"),
        (["--gen-length", "0"], "gen_length=0 must be an integer of at least 1"),
        (["--steps", "48"], "steps=48 must divide gen_length=128"),
        (["--steps", "2", "--block-length", "32"], "be a multiple of its 4 blocks"),
        (["--block-length", "48"], "multiple of block_length=48"),
        (["--threshold", "2"], "threshold=2.0 must be in [0, 1]"),
        (["--embed-dim", "30"], "embed_dim=30 must be num_heads=8 times an even head dimension"),
        ([*SIZES, "--prompt-length", "5000"], "exceed the model's context of 4096"),
        (["--model", "lrd-huge"], "there is no model 'lrd-huge'"),
    ],
)
def test_bad_options_are_named(capsys, args, message):
    assert message in refused(capsys, *args)


def test_references_decode_one_prompt_at_a_time(clone, capsys):
    assert "compare with batch 1" in refused(capsys, *SIZES, "--batch", "2", "--reference", str(clone))


def test_references_have_one_architecture(clone, capsys):
    dream = ("--sizes", "dream-7b-base", *SIZES)
    assert "the references run LLaDA's architecture" in refused(capsys, *dream, "--reference", str(clone))


@pytest.mark.parametrize(("python", "message"), [("no-such-python", "cannot be run"), ("false", "it said nothing")])
def test_what_is_no_python_is_named(clone, capsys, python, message):
    err = refused(capsys, *SIZES, "--reference", str(clone), "--reference-python", python)
    assert python in err
    assert message in err


@pytest.mark.parametrize("args", [["--model", "x", "--num-layers", "2"], ["--logit-std", "0"], ["--repeats", "0"]])
def test_what_the_parser_refuses_ends_with_the_same_status(capsys, args):
    with pytest.raises(SystemExit) as end:
        main(["bench", *args])
    assert end.value.code == cli.USER_ERROR


def test_runs_take_turns_after_one_run_each_to_warm_up():
    ran = []
    seconds = in_turns({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, rounds=2)
    assert "".join(ran) == "ab" * 3
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 2, "b": 2}


def test_an_engine_is_timed_against_static_batches(capsys):
    arguments = ["--engine", "--decoders", "threshold", "--gen-length", "16", "--requests", "10", "--slots", "4"]
    assert main(["bench", *arguments, "--repeats", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    (found,) = result["decoders"]
    assert found["same_tokens"]
    assert found["static_forwards"] >= found["engine_forwards"] >= found["least_forwards"] > 0
    assert found["rounds"] > 0 and 0 < found["full"] <= 1
    assert found["speedup"]["median"] > 0 and found["pace"]["median"] > 0
    shown = Console(width=200)
    with shown.capture() as text:
        shown.print(engine_tables(result))
    assert "10 questions, 4 slots, canvas 16" in text.get()
    assert "threshold" in text.get() and "OTHER TOKENS" not in text.get()

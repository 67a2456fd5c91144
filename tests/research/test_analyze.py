"""The open questions: what a record says of stops that were never made, distances of inputs, domains, the command."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import some_quick
from sights import recorded

from lrd_jax.checkpoint import Loaded, load
from lrd_jax.cli import USER_ERROR, main
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import make_decode
from lrd_jax.decoding.parts.commit.basic import LowestEntropy
from lrd_jax.decoding.parts.mix import Mix
from lrd_jax.decoding.parts.stop import Stop
from lrd_jax.research.analyze.analysis import analyze, unstopped
from lrd_jax.research.analyze.domains import file_domains, task_domains
from lrd_jax.research.analyze.options import Analyze
from lrd_jax.research.analyze.stops import Unstopped, by_divergence, outcome, tuned
from lrd_jax.research.analyze.trajectories import contraction, decode_trajectory
from lrd_jax.research.record import Recording, first_stop, record, recordable
from lrd_jax.tasks import problems
from lrd_jax.tasks.problem import held_out
from lrd_jax.text import answer_lengths

G = 8


class Domain:
    """Prompts that nothing checks."""

    problems = None


@pytest.fixture(scope="module")
def loaded(checkpoint):
    model, params = checkpoint("tiny-llada", "float32")
    return Loaded(model, params, None)


@pytest.fixture(scope="module")
def prompt():
    """int `[3, 5]`."""
    return np.asarray(jax.random.randint(jax.random.key(0), (3, 5), 0, 50))


@pytest.fixture(scope="module")
def held(loaded, prompt):
    decoder = make_decode(loaded.model, recordable(DecodeConfig.paper(G, stop=None)))
    return record(decoder, loaded.params, prompt, np.ones_like(prompt, bool), batch=2)


def hand_made(divergence, entropy, token, final):
    """A record of one row, two forwards on which a stop is asked, everything masked."""
    return Recording(sight=recorded(divergence, entropy, 0.95, token), filled=np.array(token), final=np.array(final))


@pytest.mark.slow
@pytest.mark.parametrize("guarded", [False, True])
def test_a_record_tells_what_every_stop_would_have_done(loaded, prompt, held, guarded):
    sight = held.sight
    asked = sight.divergence[held.asked]
    largest = np.where(sight.masked, sight.belief.entropy, 0).max(-1)[held.asked]
    decode = make_decode(loaded.model, DecodeConfig.paper(G, stop=Stop(max_entropy=9.0)))
    ended = 0
    for share in (0.1, 0.5, 0.9):
        guard = float(np.quantile(largest, share)) if guarded else 9.0
        stop = Stop(float(np.quantile(asked, 1 - share / 2)), max_entropy=guard)
        real = decode(loaded.params, prompt, config=decode.config.replace(stop=stop))
        at = first_stop(stop, sight)
        told = np.where((at >= 0)[:, None], held.filled[at, np.arange(3)], held.final)
        np.testing.assert_array_equal(told, real.tokens)
        np.testing.assert_array_equal(np.where(at >= 0, at + 1, held.forwards), real.forwards)
        ended += (at >= 0).sum()
    assert ended > 0


def test_a_record_refuses_blocks():
    with pytest.raises(ValueError, match="one block"):
        recordable(DecodeConfig.paper(G, block_length=4))


def test_a_stop_is_judged_up_to_the_end_of_the_answer(loaded):
    end = loaded.config.eos_id
    final = [[5, end, end]]
    same, other = [[[5, end, 7]]], [[[6, end, end]]]
    for token, changed in ((same, 0), (other, 1)):
        run = Unstopped.of(Domain(), loaded, hand_made([[0.01]], np.zeros((1, 1, 3)), token, final))
        assert outcome([run], Stop())["changed"]["count"] == changed
        assert outcome([run], Stop())["confident and changed"]["count"] == changed
        assert by_divergence([run])[0]["changed"]["count"] == changed


def test_tuning_takes_the_loosest_stop_within_the_risk(loaded):
    """The first forward is wrong at a KL of 0.2 and an entropy of 0.6, the second is right at 0.02 and 0.1."""
    entropy = [[[0.6, 0.0]], [[0.1, 0.0]]]
    run = Unstopped.of(Domain(), loaded, hand_made([[0.2], [0.02]], entropy, [[[6, 6]], [[5, 5]]], [[5, 5]]))
    assert tuned(run, risk=0.5)["KL alone"].tau == 0.1
    assert tuned(run, risk=1.0)["KL alone"].tau == 3.0


def test_answers_end_at_their_first_end_token():
    assert answer_lengths(np.array([[4, 0, 4, 0], [4, 4, 4, 4]]), (0,)).tolist() == [1, 4]


def test_contraction_is_the_mean_ratio_of_movements_after_the_first():
    moved = np.array([5.0, *0.5 ** np.arange(6.0)])
    assert contraction(moved, still=1e-9) == pytest.approx(0.5)
    assert contraction(moved, still=0.2) == pytest.approx(0.5)
    assert np.isnan(contraction(moved, still=0.6))


@pytest.mark.slow
@pytest.mark.parametrize("r_f", some_quick([0.0, 1.0], 1))
def test_distances_are_those_of_what_the_decode_feeds_back(loaded, prompt, r_f):
    config = recordable(DecodeConfig.paper(G, stop=None, mix=Mix(r_f=r_f)))
    prompt = prompt[:2]
    found = decode_trajectory(loaded, config, prompt, np.ones_like(prompt, bool))
    kinds = [found[kind] for kind in ("text", "end-of-text") if found[kind]["masked"][0]]
    table = np.asarray(loaded.model.table(loaded.params))
    e_mask = table[loaded.config.mask_id]
    decoder = make_decode(loaded.model, config)
    state = decoder.advance(loaded.params, decoder.start(loaded.params, prompt), 1)
    way = sum(np.multiply(kind["to_mask"][1], kind["masked"][1]) for kind in kinds) / (2 * G)
    assert all(kind["norm"][0] == pytest.approx(np.linalg.norm(e_mask), rel=1e-5) for kind in kinds)
    assert state.masked.all()  # still refining, so that the mean is over all
    assert way == pytest.approx(float(jnp.linalg.norm(state.soft - e_mask, axis=-1).mean()), rel=1e-5)
    assert (way == 0) == (r_f == 0)


def test_the_longer_domains_are_held_out_and_beyond_training():
    tokenizer = load("lrd-tiny").tokenizer
    domains = task_domains(3, 1, 64, tokenizer)
    assert [domain.trained for domain in domains] == [True, True, False, False]
    assert all(held_out(prompt) for domain in domains for prompt in domain.prompts)
    assert min(problem.grade for problem in domains[2].problems) > 8
    assert domains[2].right(0, domains[2].problems[0].answer)
    with pytest.raises(ValueError, match="gen_length=8"):
        task_domains(3, 1, 8, tokenizer)


@pytest.fixture(scope="module")
def prompts_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "sums.jsonl"
    prompts = ("Tom has 4 apples. Ann takes 2 apples. How many are left?", "Ann has 9 pens. How many remain?")
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return file


@pytest.fixture(scope="module")
def analyzed(prompts_file, tmp_path_factory):
    """The command's arguments and its folder, after one run."""
    output = tmp_path_factory.mktemp("analyze") / "out"
    numbers = ["--gen-length", "8", "--count", "2", "--batch", "2", "--refinements", "3", "--r-f", "0", "0.6"]
    args = ["analyze", "--output", str(output), "--data", str(prompts_file), *numbers]
    assert main(args) == 0
    return args, output


@pytest.mark.slow
def test_the_command_writes_data_tables_and_pictures(analyzed):
    _, output = analyzed
    data = {part: json.loads((output / f"{part}.json").read_text())["data"] for part in ("stops", "trajectories")}
    assert sorted(file.suffix for file in output.iterdir()) == [".json"] * 3 + [".md"] * 3 + [".png"] * 3
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in output.glob("*.png"))
    assert data["stops"]["unstopped"]["prompts"] == 2
    assert "| KL < 0.1 |" in (output / "stops.md").read_text()
    still, moving = data["trajectories"]["sweep"]
    assert not any(still["moved"])
    assert still["unchanged"]["share"] == 1
    assert moving["to_mask"][1] > 0
    assert len(moving["moved"]) == 3


@pytest.mark.slow
def test_what_is_there_is_drawn_and_not_measured_again(analyzed, monkeypatch):
    args, output = analyzed
    (output / "stops.png").unlink()
    monkeypatch.setattr("lrd_jax.research.analyze.analysis.load", None)
    assert main(args) == 0
    assert (output / "stops.png").exists()


@pytest.mark.slow
def test_data_of_other_settings_are_left_alone(analyzed, capsys):
    args, _ = analyzed
    assert main([*args, "--seed", "7"]) == USER_ERROR
    assert "another seed" in capsys.readouterr().err


def test_files_whose_lines_have_tasks_are_checked(tmp_path):
    drawn = problems("words", "held-out", seed=3, count=2)
    lines = ({"prompt": p.prompt, "answer": p.answer, "task": p.task} for p in drawn)
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (domain,) = file_domains((file,), 1)
    assert domain.prompts == [drawn[0].prompt]
    assert domain.right(0, drawn[0].answer)
    assert not domain.right(0, "It is done.")


@pytest.mark.parametrize(
    ("line", "message"),
    [("", "holds no prompts"), ("{", "line 1: not JSON"), ('{"prompt": " "}', "line 1: prompt is missing or empty")],
)
def test_files_without_prompts_are_refused(tmp_path, line, message):
    file = tmp_path / "prompts.jsonl"
    file.write_text(line)
    with pytest.raises(ValueError, match=message):
        file_domains((file,), 3)


@pytest.mark.parametrize(
    ("field", "value"), [("what", ("stop",)), ("count", 0), ("r_f", (0.5, 0.1)), ("risk", 1.0), ("what", ())]
)
def test_options_out_of_range_are_named(tmp_path, field, value):
    with pytest.raises(ValueError, match=f"{field}="):
        Analyze(output=tmp_path, **{field: value})


def test_the_decoder_that_is_looked_into_is_the_papers_unless_told_otherwise(tmp_path):
    paper = DecodeConfig.paper(64, stop=None, trace=True)
    assert unstopped(Analyze(output=tmp_path)) == paper
    changed = unstopped(Analyze(output=tmp_path, changes={"mix.top_p": "0.5", "commit.per_step": "2"}))
    assert changed == paper.replace(mix=Mix(top_p=0.5), commit=LowestEntropy(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "plain"}, "the decoder has no mixing or no refinement to look into"),
        ({"changes": {"block_length": "32"}}, "only decodes of one block"),
        ({"changes": {"temperature": "1"}}, "only decodes of one block at temperature 0"),
    ],
)
def test_what_cannot_be_looked_into_is_refused_before_anything_is_loaded(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        analyze(Analyze(output=tmp_path / "out", model="none", **options))
    assert not (tmp_path / "out").exists()

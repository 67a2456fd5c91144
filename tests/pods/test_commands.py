"""Commands that are started on two processes: process 0 prints and writes what one process would, or all end alike."""

import json
import signal
import subprocess

import goldens
import pytest
from pod_commands import COMMANDS, DECODER, QUESTIONS, TRAINING
from pod_launching import HEARTBEAT, HERE, Pod
from safetensors.numpy import load_file

import lrd_jax
from lrd_jax.cli import main
from lrd_jax.cli.options import Generate
from lrd_jax.cli.pod import _aside, _packed
from lrd_jax.convert.verification import verify

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    (folder / "hf").symlink_to(goldens.GOLDEN / "tiny-llada")
    (folder / "questions.txt").write_text("\n".join(QUESTIONS) + "\n")
    (folder / "train.toml").write_text(f'output = "{folder}/run"\n{TRAINING}')
    (folder / "resume.toml").write_text(f'output = "{folder}/resumed"\n{TRAINING}')
    return folder


@pytest.fixture(scope="module")
def one_process(folder):
    """A training run on one device, whose checkpoint of step 2 the pod resumes from."""
    assert main(["train", str(folder / "resume.toml")]) == 0
    run = folder / "resumed"
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for path in [run / "checkpoints" / "4.json", *(run / "model").iterdir()]:
        path.unlink()
    (run / "model").rmdir()
    return log


@pytest.fixture(scope="module")
def pod(folder, one_process):
    pod = Pod(folder, lambda address, process: [HERE / "commands.py", address, process, folder])
    try:
        yield pod
    finally:
        pod.stop()


@pytest.fixture(scope="module")
def said(pod):
    """Output and errors of each process, by command."""
    statuses = pod.statuses()
    texts = {
        name: [[(pod.folder / f"{i}.{name}.{kind}").read_text() for kind in ("out", "err")] for i in range(2)]
        for name in COMMANDS
    }
    return statuses, texts


@pytest.mark.parametrize("name", COMMANDS)
def test_process_0_prints_and_the_other_is_silent(pod, said, name):
    (out, _), (silent, err) = said[1][name]
    assert not silent
    doing = {"convert": "converting", "verify": "verifying", "export": "exporting"}.get(name)
    assert err == (f"waiting for process 0, which is {doing}\n" if doing else "")
    assert out or name == "generate"
    assert [(pod.folder / f"{i}.{name}.status").read_text() for i in range(2)] == ["0", "0"]


def test_answers_are_those_of_one_process(pod, said, capsys):
    seed = said[1]["generate"][0][1].split("seed ")[1].split()[0]  # a fresh one, of process 0
    asked = COMMANDS["generate"][5:]
    asked = asked[: asked.index("--mesh")]
    assert main(["generate", "--input", str(pod.folder / "questions.txt"), "--seed", seed, *asked]) == 0
    assert (pod.folder / "answers.txt").read_text() == capsys.readouterr().out


def test_chat_hears_process_0(said):
    (answer,) = lrd_jax.Generator(lrd_jax.load("lrd-tiny-soft"), lrd_jax.DecodeConfig.lrd(16)).generate(QUESTIONS[:1])
    assert said[1]["chat"][0][0] == answer.text + "\n"


def test_process_0_converts_verifies_and_exports(pod, said):
    assert len(verify(pod.folder / "converted").tensors) > 10
    assert said[1]["verify"][0][0].endswith("as they were written\n")
    (exported,) = (pod.folder / "exported").glob("*.safetensors")
    assert {name: array.tobytes() for name, array in load_file(exported).items()} == {
        name: array.tobytes()
        for part in (pod.folder / "hf").glob("*.safetensors")
        for name, array in load_file(part).items()
    }


@pytest.mark.parametrize("run", ["run", "resumed"])
def test_training_goes_as_on_one_device(pod, said, one_process, run):
    log = [json.loads(line) for line in (pod.folder / run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2, 3, 4]
    assert [line["loss"] for line in log] == pytest.approx([line["loss"] for line in one_process], rel=1e-4)
    assert lrd_jax.load(pod.folder / run / "model").config.num_layers == 1


def test_processes_that_are_asked_for_different_things_say_so(pod, said):
    assert said[0] == [2, 2]
    words = [(pod.folder / f"{i}.different.err").read_text() for i in range(2)]
    wanted = "the processes differ in their command lines: question is Tom has 14 apples."
    assert words[0].startswith(f"error: {wanted}") and words[1].startswith(f"error: process 1: {wanted}")
    assert "on process 0, Tom has 12 apples. How many are left? on process 1" in words[0]


def test_a_process_that_is_killed_ends_the_other_with_one_message(tmp_path):
    joins = ["--num-processes", "2", "--process-id"]

    def command(address, process):
        return [
            "-c",
            "from lrd_jax.cli import main; raise SystemExit(main())",
            "chat",
            "--no-chat",
            *DECODER,
            "--coordinator",
            address,
            *joins,
            process,
        ]

    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    pod = Pod(tmp_path, command, **streams)
    try:
        first, second = pod.processes
        first.stdin.write(QUESTIONS[0].encode() + b"\n")
        first.stdin.flush()
        assert first.stdout.readline()  # both wait for the next question
        second.send_signal(signal.SIGKILL)
        assert first.wait(3 * HEARTBEAT) == 1
        assert pod.logs[0].read_text().splitlines()[-1].startswith("error: process 1 ended: it was not heard of for")
    finally:
        pod.stop()


def test_the_other_processes_write_in_a_copy_of_what_process_0_finds(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "aside").mkdir()
    (tmp_path / "there" / "a.txt").write_text("old")
    options = Generate(question="q", output=tmp_path / "there" / "a.txt")
    aside = _aside(options, tmp_path / "aside", {"output": _packed(options.output)})
    assert aside.output != options.output and aside.output.read_text() == "old"
    assert _packed(tmp_path / "absent") is None

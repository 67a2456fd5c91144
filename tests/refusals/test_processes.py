"""Faults around a command: Ctrl-C at any moment, closed streams, locales, platforms, terminals, noise of libraries."""

import contextlib
import fcntl
import io
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import jax
import pytest
from small_run import recipe

from lrd_jax.cli import INTERRUPTED, USER_ERROR, _Unheard, main
from lrd_jax.decoding.compiling import PlatformJit

pytestmark = pytest.mark.slow  # processes of their own, each with its imports

COMMAND = str(Path(sys.executable).parent / "lrd-jax")
QUESTION = "Tom has 14 apples. Ann takes 5 apples. How many are left?"
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
SMALL = ["--gen-length", "8"]


@pytest.fixture
def run(tmp_path):
    """`run(args, shell="", **environment)`: status, standard output and error of a command in a process of its own.

    The shell's words, such as >&-, follow the command.
    """

    def go(*args, shell="", **environment):
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        env = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), **environment}
        process = subprocess.run(
            ["/bin/sh", "-c", f'exec "$0" "$@" {shell}', COMMAND, *args],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=env,
            cwd=home,
            timeout=120,
        )
        return process.returncode, process.stdout.decode(), process.stderr.decode()

    return go


def one_message(err, words):
    assert err.startswith("error: ") and err.count("error: ") == 1 and "Traceback" not in err, err
    assert words in err, err


@pytest.mark.parametrize(
    ("args", "shell", "words"),
    [
        (["generate", QUESTION], ">&-", "standard output is closed"),
        (["generate", QUESTION], "<&- >&-", "standard output is closed"),
        (["verify", "no"], ">&-", "standard output is closed"),
        (["generate"], "<&-", "the question is empty"),
        (["generate", "-"], "<&-", "the question is empty"),
        (["generate", QUESTION, *SMALL], "> /dev/full", "No space left on device"),
    ],
)
def test_closed_and_full_streams(run, args, shell, words):
    status, out, err = run(*args, shell=shell)
    assert (status, out) == (USER_ERROR, "")
    one_message(err, words)


def test_streams_that_nobody_needs_may_be_closed(run):
    assert run("chat", *SMALL, shell="<&-")[:2] == (0, "")
    status, out, _ = run("generate", QUESTION, *SMALL, shell="2>&- <&-")
    assert status == 0 and out.count("\n") == 1
    assert run("generate", "", shell="2>&-") == (USER_ERROR, "", "")


def test_who_stops_reading_standard_error_does_not_end_the_work():
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        stream = io.TextIOWrapper(io.BufferedWriter(_Unheard(pipe.fileno(), "w", closefd=False)), line_buffering=True)
        for _ in range(2):
            print("note: nobody hears", file=stream)


def test_who_stops_reading_ends_it_without_words(run):
    status, out, err = run("generate", "--help", shell="| head -n 1")
    assert (status, out.count("\n"), err) == (0, 1, "")


@pytest.mark.parametrize("platform", ["bogus", "cuda"])
@pytest.mark.parametrize("args", [["generate", QUESTION], ["convert", "MODEL", "out"]])
def test_a_platform_that_is_not_there_gets_one_message(run, models, platform, args):
    args = [models["word"] if arg == "MODEL" else arg for arg in args]
    status, out, err = run(*args, JAX_PLATFORMS=platform)
    assert (status, out) == (USER_ERROR, "")
    one_message(err, f"JAX_PLATFORMS={platform} is asked for; choose one that is there, such as cpu")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"JAX_ENABLE_X64": "1"}, "jax_enable_x64 is on, and decoding is built for 32 bits"),
        ({"JAX_ENABLE_X64": "maybe"}, "JAX does not take a setting of the environment: "),
        ({"JAX_DEFAULT_MATMUL_PRECISION": "bogus"}, "JAX does not take a setting of the environment: "),
        ({"JAX_NUM_CPU_DEVICES": "x"}, "JAX does not take a setting of the environment: "),
    ],
)
def test_settings_of_jax_that_cannot_be_meant_get_one_message(run, setting, words):
    status, out, err = run("generate", QUESTION, *SMALL, **setting)
    assert (status, out) == (USER_ERROR, "")
    one_message(err, words)


def test_a_folder_that_is_gone_is_said(models, tmp_path):
    code = "import os, sys; os.mkdir('x'); os.chdir('x'); os.rmdir('../x')\n"
    code += "from lrd_jax.cli import main; sys.exit(main())"
    args = [sys.executable, "-c", code, "convert", models["word"], "out"]
    result = subprocess.run(args, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (result.returncode, result.stdout) == (USER_ERROR, "")
    one_message(result.stderr, "the folder that this runs in is gone; go to another one")


def test_files_are_utf_8_and_answers_are_written_in_a_locale_that_is_not(run, models, tmp_path):
    (tmp_path / "q.jsonl").write_text('{"prompt": "Zwölf\u2028Äpfel"}\n', encoding="utf-8")
    asked = ["--model", models["byte"], *SMALL]
    status, out, _ = run("generate", "--input", str(tmp_path / "q.jsonl"), *asked, **ASCII)
    assert status == 0 and out.isascii() and out.count("\n") == 1
    given = run("generate", "Zwölf", "--json", "--output", "a.json", *asked, **ASCII)
    assert given[0] == 0
    assert run("generate", "Zwölf", "--json", "--output", "b.json", *asked, LC_ALL="C.UTF-8")[0] == 0
    ascii_, utf_8 = ((tmp_path / "home" / name).read_text(encoding="utf-8") for name in ("a.json", "b.json"))
    assert ascii_.split(', "tokens"')[0] == utf_8.split(', "tokens"')[0]


@pytest.mark.parametrize("columns", ["1", "0", "x"])
def test_help_and_refusals_fit_the_narrowest_terminal(run, columns):
    status, out, err = run("generate", "--help", COLUMNS=columns, LINES="1")
    assert status == 0 and "--gen-length" in out and err == ""
    assert run("generate", "--gen-length", "x", COLUMNS=columns)[0] == USER_ERROR


def test_a_decode_on_a_terminal_of_one_column(run, tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 1, 1, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    env |= {"TERM": "xterm", "XDG_CACHE_HOME": str(tmp_path)}
    args = [COMMAND, "generate", QUESTION, *SMALL]
    process = subprocess.Popen(args, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    screen = b""
    while True:
        try:
            screen += os.read(ours, 65536)
        except OSError:  # how Linux tells that the other side has closed
            break
    os.close(ours)
    assert process.wait() == 0 and b"Traceback" not in screen


RECIPE = recipe("run", steps=1, batch=1, warmup_steps=0)


def test_libraries_make_no_noise(run, tmp_path):
    (tmp_path / "t.toml").write_text(RECIPE)
    status, out, err = run("train", str(tmp_path / "t.toml"))
    assert status == 0 and out.endswith("/run/model\n") and out.count("\n") == 1
    for noise in ("PyTorch", "not a git repository", "transformers", "Warning", "absl", "TensorFlow"):
        assert noise not in err, err
    status, out, err = run("generate", QUESTION, *SMALL)
    assert status == 0 and err.count("\n") == 1 and "forwards" in err


MOMENTS = {  # what must have been imported when Ctrl-C comes
    "the parser": "tyro",
    "options": "lrd_jax.options",
    "numpy": "numpy._core.multiarray",
    "jax": "jax._src.core",
    "the model": "lrd_jax.models.transformer",
    "jinja": "lrd_jax.text.chat",
    "tensorstore": "tensorstore",
}
INTERRUPTING = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from lrd_jax.cli import main
sys.exit(main(["generate", {question!r}, "--gen-length", "8"]))
"""


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_during_an_import(tmp_path, moment):
    code = INTERRUPTING.format(module=MOMENTS[moment], question=QUESTION)
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (INTERRUPTED, "", "interrupted\n")


def test_ctrl_c_does_not_wait_for_an_import_that_nothing_is_done_before(tmp_path):
    code = INTERRUPTING.format(module="lrd_jax.cli.generate", question=QUESTION)
    code = code.replace("raise_signal(signal.SIGINT)", "raise_signal(signal.SIGINT), threading.Event().wait()")
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (INTERRUPTED, "", "interrupted\n")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory: ask for less at a time"),
        (MemoryError("Unable to allocate 9 TiB"), "not enough memory: Unable to allocate 9 TiB; ask for less"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.\nBuffers: ..."),
            "not enough memory: Out of memory allocating 8 bytes; ask for less at a time: a smaller batch",
        ),
        (
            jax.errors.JaxRuntimeError("INTERNAL: Error dispatching computation: Out of memory allocating 8 bytes."),
            "not enough memory: Out of memory allocating 8 bytes; ask for less at a time: a smaller batch",
        ),
    ],
)
def test_no_memory_gets_one_message(models, monkeypatch, capsys, error, words):
    def forward(*args, **kwargs):
        raise error

    monkeypatch.setattr(PlatformJit, "__call__", forward)
    assert main(["generate", QUESTION, "--model", models["word"], "--gen-length", "16"]) == USER_ERROR
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    one_message(err, words)


def test_another_error_of_the_runtime_keeps_its_traceback(models, monkeypatch):
    def forward(*args, **kwargs):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")

    monkeypatch.setattr(PlatformJit, "__call__", forward)
    with pytest.raises(jax.errors.JaxRuntimeError):
        main(["generate", QUESTION, "--model", models["word"], "--gen-length", "16"])


@pytest.fixture(scope="module")
def start_seconds():
    """Until a command is there to be interrupted, on this machine as it is now."""
    began = time.monotonic()
    subprocess.run([COMMAND, "--version"], check=True, capture_output=True)
    return 2 * (time.monotonic() - began)


@pytest.mark.parametrize("seconds", [0.2, 0.7, 1.3, 2.1, 3.7])
def test_ctrl_c_at_any_moment(tmp_path, start_seconds, seconds):
    """Of decodes that take a minute."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(f"{QUESTION}\n" * 16)
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    args = [COMMAND, "generate", "--input", str(prompts), "--batch", "16", "--model", "lrd-tiny"]
    args += ["--gen-length", "448", "--preset", "plain"]
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # an ignored signal would be ignored there too
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    signal.signal(signal.SIGINT, handler)
    time.sleep(start_seconds + seconds)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (INTERRUPTED, "", "interrupted\n")


def test_an_interrupt_of_the_whole_process_keeps_its_status(monkeypatch, capfd):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr("lrd_jax.cli.commands.parsed", lambda args: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):  # what comes after the end that was put off here
        main(["generate", QUESTION])
    assert ended == [INTERRUPTED] and capfd.readouterr().err == "interrupted\n"


def test_an_interrupt_that_compiled_code_drops_comes_again(monkeypatch):
    def drops(args):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        time.sleep(60)
        pytest.fail("it went on")

    monkeypatch.setattr(os, "_exit", lambda status: None)
    monkeypatch.setattr("lrd_jax.cli.commands.parsed", drops)
    with pytest.raises(KeyboardInterrupt):
        main(["generate", QUESTION])


def test_an_interrupt_lets_what_cleans_up_end(monkeypatch):
    def cleans(args):
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            time.sleep(0.3)  # six times as long as until it is asked again
            cleaned.append(True)

    cleaned = []
    monkeypatch.setattr(os, "_exit", lambda status: None)
    monkeypatch.setattr("lrd_jax.cli.commands.parsed", cleans)
    with pytest.raises(KeyboardInterrupt):
        main(["generate", QUESTION])
    assert cleaned == [True]

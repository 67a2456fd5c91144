"""Folders that appear whole or not at all: signals, a full disk, too few file handles, leftovers of a kill."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import goldens
import pytest
from orbax.checkpoint import v1 as ocp

from lrd_jax.cli import main
from lrd_jax.convert import ConversionError, convert
from lrd_jax.convert.folders import appearing

pytestmark = pytest.mark.slow

HOLD = """
import sys, time
from pathlib import Path
from lrd_jax.convert.folders import appearing
with appearing(Path(sys.argv[1])) as work:
    (work / "file").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holding(tmp_path):
    """A process that is in the middle of `tmp_path/new/dest`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "new" / "dest")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        text=True,
    )
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_leaves_nothing(holding, tmp_path, kind):
    holding.send_signal(kind)
    _, errors = holding.communicate(timeout=30)
    assert holding.returncode == -kind  # as if it had not been caught
    assert not errors
    assert not list(tmp_path.iterdir())


def test_leftovers_of_a_kill_are_removed_by_the_next_run(holding, tmp_path, capsys):
    holding.kill()
    holding.wait()
    (left,) = (tmp_path / "new").iterdir()
    with appearing(tmp_path / "new" / "dest") as work:
        assert list((tmp_path / "new").iterdir()) == [work]
    assert capsys.readouterr().err == f"removed {left}, which a run that was killed had left\n"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["dest"]


def test_what_another_run_is_writing_is_named_and_left(holding, tmp_path, capsys):
    (other,) = (tmp_path / "new").iterdir()
    with appearing(tmp_path / "new" / "dest"):
        pass
    assert f"{other} belongs to another run; if that was killed: rm -r {other}\n" in capsys.readouterr().err
    assert (other / "file").read_text() == "half"


def test_leftovers_of_another_destination_are_left(tmp_path, capsys):
    for name in ("dest2.partial-1", "dest"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("mine")
    with appearing(tmp_path / "d[e]st"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d[e]st", "dest", "dest2.partial-1"]
    assert not capsys.readouterr().err


def test_a_folder_that_may_not_be_written_to_is_told_by_the_name_that_was_asked_for(tmp_path, monkeypatch):
    def refuse(path, *args, **kwargs):  # root may write anywhere
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", lambda path, *args, **kwargs: None if path == tmp_path else refuse(path))
    with pytest.raises(PermissionError) as told, appearing(tmp_path / "dest"):
        pass
    assert told.value.filename == str(tmp_path / "dest")


def test_an_error_leaves_no_parents_behind(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device: '.*dest'"), appearing(tmp_path / "a" / "b" / "dest"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


def test_handlers_of_others_are_left_alone(tmp_path):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with appearing(tmp_path / "dest"):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_too_few_file_handles_are_said_before_the_work(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 10, hard))
    try:
        with pytest.raises(ConversionError, match=r"too few file handles(.|\n)*ulimit -n"):
            convert(goldens.GOLDEN / "tiny-llada", tmp_path / "new" / "dest")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_orbax_failing_in_the_end_is_one_error(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ocp, "save", full)
    with pytest.raises(ConversionError, match=r"cannot write to .*\n  - \[Errno 28\] No space left on device$"):
        convert(goldens.GOLDEN / "tiny-llada", tmp_path / "dest")
    assert not list(tmp_path.iterdir())


def test_verify_on_the_command_line(tmp_path, capsys):
    convert(goldens.GOLDEN / "tiny-llada", tmp_path / "dest")
    assert main(["verify", str(tmp_path / "dest")]) == 0
    assert "30 tensors are as they were written" in capsys.readouterr().out
    (tmp_path / "dest" / "config.json").write_text("{}")
    assert main(["verify", str(tmp_path / "dest")]) == 2
    assert "dest is damaged:\n  - config.json has 2 bytes" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "nothing")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_tokenizer_that_cannot_be_copied_is_said_before_the_work(tmp_path):
    source = shutil.copytree(goldens.GOLDEN / "tiny-llada", tmp_path / "source")
    (source / "tokenizer.json").symlink_to("nowhere")
    with pytest.raises(ConversionError, match=r"what cannot be copied:\n  - tokenizer\.json is no file"):
        convert(source, tmp_path / "dest")
    assert not (tmp_path / "dest").exists()

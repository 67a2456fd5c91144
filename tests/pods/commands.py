"""One process of a pod that runs commands: `commands.py COORDINATOR PROCESS FOLDER`, as `lrd-jax` would one by one.

Files and streams of each command go to FOLDER; the last one is asked differently of the two processes.
"""

import io
import os
import sys
from pathlib import Path

from pod_commands import COMMANDS, DIFFERENT, SPOKEN

from lrd_jax.cli import main

coordinator, process, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
os.chdir(folder)
joins = ["--coordinator", coordinator, "--num-processes", "2", "--process-id", str(process)]


def speak_to(name):
    """Streams to files: what a command leaves open is flushed line by line."""
    sys.stdout = (folder / f"{process}.{name}.out").open("w", buffering=1)
    sys.stderr = sys.__stderr__ = (folder / f"{process}.{name}.err").open("w", buffering=1)


for name, arguments in COMMANDS.items():
    speak_to(name)
    if process == 0:
        sys.stdin = io.TextIOWrapper(io.BytesIO(SPOKEN.encode()))
    status = main([*arguments, *joins])
    sys.stdout.flush()
    sys.stderr.flush()
    (folder / f"{process}.{name}.status").write_text(str(status))
speak_to("different")
main([*DIFFERENT[process], *joins])

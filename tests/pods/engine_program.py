"""One process of a pod with an engine: `engine_program.py COORDINATOR PROCESSES PROCESS FOLDER`."""

import json
import sys
import time
from pathlib import Path

import jax
from pod_requests import CONFIGS, PROMPT_LENGTH, requests

import lrd_jax
from lrd_jax.engine import Engine
from lrd_jax.pods import connect
from lrd_jax.sharding import make_mesh

coordinator, processes, process, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
connect(coordinator, processes, process, heartbeat_seconds=10, timeout_seconds=120)
loaded = lrd_jax.load(folder / "model", mesh=make_mesh(data=2, fsdp=2))
facts = {"refused": [], "answers": []}


def refusal(function):
    try:
        function()
    except ValueError as error:
        facts["refused"].append(str(error))


refusal(lambda: Engine(loaded, CONFIGS[0], slots=2 + 2 * process, prompt_length=PROMPT_LENGTH))
first = Engine(loaded, CONFIGS[0], slots=4, prompt_length=PROMPT_LENGTH)
second = Engine(loaded, CONFIGS[1], slots=2, prompt_length=(4, PROMPT_LENGTH), beside=first)
with first, second:
    if process == 0:
        handles = [(second if which else first).submit(request) for which, request in requests()]
        answers = [handle.result(120) for handle in handles]
        facts["answers"] = [answer.to_json() | {"canvas": answer.canvas.tolist()} for answer in answers]
        time.sleep(2.5)  # the others wait at a heartbeat
        again = next(request for which, request in requests() if not which)
        facts["again"] = first.submit(again).result(120).canvas.tolist()
    else:
        refusal(lambda: first.submit(requests()[0][1]))
    try:
        jax.block_until_ready(jax.jit(lambda x: x + 1)(jax.tree.leaves(loaded.params)[0]))
        facts["guarded"] = ""
    except Exception as error:
        facts["guarded"] = str(error)
(folder / f"{process}.json").write_text(json.dumps(facts))
(folder / f"{process}.done").touch()

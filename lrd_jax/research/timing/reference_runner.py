"""Runs the generate functions of a clone of LLaDA or Fast-dLLM in a Python that has torch.

Started as a script by `lrd_jax.research.timing.reference`, and never imported: it needs torch, transformers and what
the clone asks for, and nothing of this package. One JSON object a line comes in ({"do": a key of `ACTIONS`, ...its
arguments}), one goes out for each: the action's answer, or {"missing": module} or {"error": words}.
"""

import importlib
import importlib.util
import inspect
import json
import os
import sys
import time
import types

opened = {}  # what an action leaves for those after it


class Counted:
    """A model that counts its calls."""

    def __init__(self, model):
        self.model, self.calls = model, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return self.model(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.model, name)


def open_clone(generate, modeling, threads):
    """Imports a generate.py, and the folder of its modeling_llada.py as the package `model` that clones import."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    package = types.ModuleType("model")
    package.__path__ = [modeling]
    sys.modules["model"] = package
    opened["model_class"] = importlib.import_module("model.modeling_llada").LLaDAModelLM
    spec = importlib.util.spec_from_file_location("reference_generate", generate)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    functions = {name: f for name, f in inspect.getmembers(module, inspect.isfunction) if name.startswith("generate")}
    opened["functions"] = functions
    return {
        "functions": {name: list(inspect.signature(f).parameters) for name, f in functions.items()},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def load(folder, dtype, device):
    """Loads the weights of a Hugging Face folder."""
    import torch

    model = opened["model_class"].from_pretrained(folder, torch_dtype=getattr(torch, dtype))
    opened["model"], opened["device"] = Counted(model.to(device).eval()), device
    return {}


def run(function, prompt, arguments):
    """One call; `arguments` go to the function by name."""
    import torch

    model = opened["model"]
    ids = torch.tensor(prompt).to(opened["device"])
    model.calls, began = 0, time.perf_counter()
    answer = opened["functions"][function](model, ids, **arguments)
    tokens = (answer[0] if isinstance(answer, tuple) else answer).cpu()  # waits for the device
    seconds = time.perf_counter() - began
    return {"tokens": tokens[:, ids.shape[1] :].tolist(), "forwards": model.calls, "seconds": seconds}


ACTIONS = {"open": open_clone, "load": load, "run": run}


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # clones may print; only answers go where answers are read
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = ACTIONS[request.pop("do")](**request)
        except ModuleNotFoundError as error:
            answer = {"missing": error.name}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()

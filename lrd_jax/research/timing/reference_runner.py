"""Runs the generate functions of a clone in a Python that has torch.

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


def open_clone(clone, generate, modeling, package, threads):
    """Imports a file of generate functions, and the folder of its modeling code by the name that clones import."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    sys.path.insert(0, clone)
    sys.modules[package] = types.ModuleType(package)
    sys.modules[package].__path__ = [os.path.dirname(modeling)]
    code = os.path.splitext(os.path.basename(modeling))[0]
    opened["model_class"] = importlib.import_module(f"{package}.{code}").LLaDAModelLM
    # In that package, for code that imports its neighbours.
    spec = importlib.util.spec_from_file_location(f"{package}.reference_generate", generate)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    functions = {name: f for name, f in inspect.getmembers(module, inspect.isfunction) if name.startswith("generate")}
    opened["functions"] = functions
    return {
        "functions": {name: list(inspect.signature(f).parameters) for name, f in functions.items()},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def load(folder, dtype, device, kind, settings):
    """Loads the weights of a Hugging Face folder, and sets the model up as clones of this kind do."""
    import torch

    model = opened["model_class"].from_pretrained(folder, torch_dtype=getattr(torch, dtype)).to(device).eval()
    if kind in SETTLERS:
        SETTLERS[kind](model, **settings)
    opened["model"], opened["device"] = Counted(model), device
    return {}


def settle_dllm_cache(model, **settings):
    """dLLM-Cache: its hooks in the blocks, and the one cache that they share."""
    from dllm_cache.cache import dLLMCache
    from dllm_cache.hooks import register_cache_LLaDA

    dLLMCache.new_instance(**settings)
    register_cache_LLaDA(model, "model.transformer.blocks")
    for block in model.model.transformer.blocks:
        block.forward = without_news(block.forward)


def without_news(forward):
    """The function, for callers whose own code has grown parameters since, as long as they leave them unset."""
    known = inspect.signature(forward).parameters
    return lambda *args, **given: forward(*args, **{k: v for k, v in given.items() if k in known or v is not None})


def settle_sparse_dllm(model, **settings):
    """Sparse-dLLM: reads its settings in the configs, the class's and its network's."""
    for config in (model.config, model.model.config):
        for name, value in settings.items():
            setattr(config, name, value)
    code = sys.modules[type(model).__module__]
    code.torch = LowerFirst(code.torch)


class LowerFirst:
    """torch, but of equals `topk` takes the lower first: pooled importances are often equal, and topk takes any."""

    def __init__(self, torch):
        self.torch = torch

    def __getattr__(self, name):
        return getattr(self.torch, name)

    def topk(self, values, k, dim):
        values, at = self.torch.sort(values, dim=dim, descending=True, stable=True)
        return values.narrow(dim, 0, k), at.narrow(dim, 0, k)


SETTLERS = {"dLLM-Cache": settle_dllm_cache, "Sparse-dLLM": settle_sparse_dllm}


def run(function, prompt, arguments):
    """One call; `arguments` go to the function by name, and so does what else it asks for."""
    import torch

    model, function = opened["model"], opened["functions"][function]
    ids = torch.tensor(prompt).to(opened["device"])
    asked = {"model": model, "prompt": ids, "input_ids": ids, "attention_mask": None, "tokenizer": None}
    given = {name: asked[name] for name in inspect.signature(function).parameters if name in asked}
    model.calls, began = 0, time.perf_counter()
    answer = function(**given, **arguments)
    tokens = (answer[0] if isinstance(answer, tuple) else answer).cpu()  # waits for the device
    seconds = time.perf_counter() - began
    return {"tokens": tokens[:, -arguments["gen_length"] :].tolist(), "forwards": model.calls, "seconds": seconds}


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

"""A benchmark's result as people read it."""

from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table


def tables(result: dict[str, Any]) -> RenderableType:
    """The result of `lrd_jax.research.timing.comparison.compare` as tables, with what they were measured on."""
    parts: list[RenderableType] = [_about(result), _decoders(result)]
    if result["references"]:
        parts.append(_references(result))
    peak = result["peak_memory"]
    parts.append(f"peak memory, {peak['counted']}: {_size(peak['bytes'])}; medians, ranges in brackets")
    return Group(*parts)


def engine_tables(result: dict[str, Any]) -> RenderableType:
    """The result of `lrd_jax.research.timing.engine.run`, likewise."""
    table = _table(
        1, "decoder", "static s", "engine s", "x faster", "at most", "forwards", "full", "waited", "rounds", "pace"
    )
    for found in result["decoders"]:
        table.add_row(
            found["decoder"] + ("" if found["same_tokens"] else ", OTHER TOKENS"),
            _spread(found["static_seconds"], 1, 2),
            _spread(found["engine_seconds"], 1, 2),
            _spread(found["speedup"], 1, 2),
            f"{found['static_forwards'] / found['least_forwards']:.2f}",
            f"{found['static_forwards']} / {found['engine_forwards']}",
            f"{found['full']:.0%}",
            f"{found['waited']:.0%}",
            str(found["rounds"]),
            _spread(found["pace"], 1, 2),
        )
    options, machine = result["options"], result["machine"]
    about = (
        f"{options['model']}, {result['parameters'] / 1e6:,.1f} M parameters, {options['dtype']}: "
        f"{options['requests']} questions, {options['slots']} slots, canvas {options['gen_length']}\n"
        f"{machine['device']} ({machine['system']}, {machine['cores']} cores); jax {machine['versions']['jax']}"
    )
    legend = (
        "at most: x faster if no slot ever rested; forwards: of static batches / of the engine; full: slots that ran, "
        "of all forwards; waited: of those, for a joint refresh; pace: forwards a second of the engine over those of "
        "advance alone, both with the longest prompts"
    )
    return Group(about, table, legend)


def disagreements(result: dict[str, Any]) -> list[str]:
    """What to say of each reference whose tokens differ."""
    return [
        f"{found['reference']}'s {found['function']} and {found['decoder']} decode different tokens, "
        f"first at row {found['first_difference'][0]}, position {found['first_difference'][1]}"
        for found in result["references"]
        if not found["tokens_agree"]
    ]


def _about(result: dict[str, Any]) -> str:
    options, machine, model = result["options"], result["machine"], result["model"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{options['model'] or 'random weights'}, {result['parameters'] / 1e6:,.1f} M parameters, {options['dtype']}: "
        f"{model['num_layers']} layers, d {model['embed_dim']}, vocabulary {model['vocab_size']}\n"
        f"batch {options['batch']}, prompt {options['prompt_length']}, canvas {options['gen_length']}, "
        f"window {options['block_length'] or options['gen_length']}\n"
        f"{machine['device']} ({machine['system']}, {machine['cores']} cores); {versions}"
    )


def _decoders(result: dict[str, Any]) -> Table:
    table = _table(1, "decoder", "forwards", "ms a forward", "seconds", "tokens/s", "memory", "compile s")
    for found in result["decoders"]:
        table.add_row(
            found["decoder"],
            str(found["forwards"]),
            _spread(found["seconds_per_forward"], 1000, 1),
            f"{found['seconds']['median']:.2f}",
            f"{found['tokens_per_second']:.0f}",
            "" if found["compiled_memory_bytes"] is None else _size(found["compiled_memory_bytes"]),
            f"{found['compile_seconds']:.1f}",
        )
    return table


def _references(result: dict[str, Any]) -> Table:
    table = _table(2, "reference", "decoder", "forwards", "ms a forward", "x ours", "in all", "tokens")
    for found in result["references"]:
        table.add_row(
            f"{found['reference']} {found['function']}",
            found["decoder"],
            str(found["forwards"]),
            _spread(found["seconds_per_forward"], 1000, 1),
            _spread(found["ratio_per_forward"], 1, 2),
            f"{found['ratio']['median']:.2f}",
            "agree" if found["tokens_agree"] else "DIFFER",
        )
    return table


def _table(names: int, *columns: str) -> Table:
    """A table whose first `names` columns fold where a terminal is narrow; figures stay whole."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        if i < names:
            table.add_column(column, min_width=9, overflow="fold")
        else:
            table.add_column(column, justify="right", no_wrap=True)
    return table


def _spread(spread: dict[str, float], factor: float, digits: int) -> str:
    median, low, high = (spread[key] * factor for key in ("median", "low", "high"))
    digits = max(0, digits - (median >= 100))
    return f"{median:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def _size(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"

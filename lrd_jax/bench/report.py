"""A benchmark's result as people read it."""

from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table


def tables(result: dict[str, Any]) -> RenderableType:
    """The result of `lrd_jax.bench.run.run` as tables, with what they were measured on."""
    parts: list[RenderableType] = [_about(result), _decoders(result)]
    if result["references"]:
        parts.append(_references(result))
    peak = result["peak_memory"]
    parts.append(f"peak memory, {peak['counted']}: {_size(peak['bytes'])}; medians, ranges in brackets")
    return Group(*parts)


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
    table = _table("decoder", "forwards", "ms a forward", "seconds", "tokens/s", "memory", "compiled in s")
    for found in result["decoders"]:
        table.add_row(
            found["decoder"],
            str(found["forwards"]),
            _spread(found["seconds_per_forward"], 1000, ".1f"),
            f"{found['seconds']['median']:.2f}",
            f"{found['tokens_per_second']:.0f}",
            "" if found["compiled_memory_bytes"] is None else _size(found["compiled_memory_bytes"]),
            f"{found['compile_seconds']:.1f}",
        )
    return table


def _references(result: dict[str, Any]) -> Table:
    table = _table("reference", "decoder", "forwards", "ms a forward", "x ours", "x ours in all", "tokens")
    for found in result["references"]:
        table.add_row(
            f"{found['reference']} {found['function']}",
            found["decoder"],
            str(found["forwards"]),
            _spread(found["seconds_per_forward"], 1000, ".1f"),
            _spread(found["ratio_per_forward"], 1, ".2f"),
            f"{found['ratio']['median']:.2f}",
            "agree" if found["tokens_agree"] else "DIFFER",
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):  # names give way where a terminal is narrow
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i > 0, overflow="fold")
    return table


def _spread(spread: dict[str, float], factor: float, form: str) -> str:
    median, low, high = (format(spread[key] * factor, form) for key in ("median", "low", "high"))
    return f"{median} ({low}-{high})"


def _size(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"

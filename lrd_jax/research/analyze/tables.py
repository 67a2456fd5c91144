"""The data as Markdown tables, shares in percent with 95 % intervals."""

from collections.abc import Callable
from typing import Any

from lrd_jax.research.markdown import table, whole_percent

Data = dict[str, Any]


def stops(data: Data) -> str:
    """What the stops cost, and how often they are wrong by their divergence."""
    outcomes = table(
        ["stop", "forwards", "stopped", "changed", "confident and changed", "harmed", "mended", "right"],
        [
            [
                _rule(cell),
                f"{cell['forwards']:.1f}",
                *(_percent(cell.get(name)) for name in ("stopped", "changed", "confident and changed")),
                *(_percent(cell.get(name)) for name in ("harmed", "mended", "accuracy")),
            ]
            for cell in data["KL alone"] + data["guarded"]
        ],
    )
    bins = table(
        ["KL at the stop, nats", "stops", "changed", "confident and changed", "largest entropy, median"],
        [
            [
                f"{cell['from']:g} to {'infinity' if cell['to'] is None else format(cell['to'], 'g')}",
                str(cell["stops"]),
                _percent(cell["changed"]),
                _percent(cell["confident and changed"]),
                f"{cell['median of the largest entropy']:.2f}",
            ]
            for cell in data["by KL at the stop"]
        ],
    )
    unstopped, tokens = data["unstopped"], data["tokens filled by the paper's stop"]
    facts = f"Unstopped, {unstopped['prompts']} prompts: {unstopped['forwards']:.1f} forwards"
    facts += f", {_percent(unstopped['accuracy'])} right." if "accuracy" in unstopped else "."
    filled = "; ".join(
        f"{cell['tokens']} that {name}"
        + (" ({:.2f}, {:.2f}, {:.2f})".format(*cell["quartiles"]) if cell["tokens"] else "")
        for name, cell in tokens.items()
    )
    facts += f" Tokens that the paper's stop fills, quartiles of their confidence: {filled}."
    return f"{facts}\n\n{outcomes}\n\n{bins}\n"


def trajectories(data: Data) -> str:
    """Refinement and decode at every r_f."""
    scale = data["decode"]["scale"]
    rows = []
    for cell in data["sweep"]:
        rate, kl = cell["contraction"]["median"], cell["kl"][-1]
        rows.append(
            [
                f"{cell['r_f']:g}",
                f"{cell['to_mask'][-1]:.3f}",
                f"{cell['to_token'][-1]:.3f}",
                f"{cell['norm'][-1]:.3f}",
                "" if rate is None else f"{rate:.2f}",
                _percent(cell["contraction"]["unsettled"]),
                "" if kl is None else f"{kl:.2g}",
                _percent(cell["unchanged"]),
                _percent(cell.get("accuracy")),
            ]
        )
    head = ["r_f", "to [MASK]", "to the token", "norm", "shrinks by", "rows unsettled", "last KL", "unchanged", "right"]
    return (
        f"|[MASK]| = {scale['mask_norm']:.3f}, tokens {scale['token_norm']:.3f}, "
        f"from [MASK] to a token {scale['mask_to_token']:.3f}. The last forward of refinement:\n\n{table(head, rows)}\n"
    )


def domains(data: Data) -> str:
    """Every rule on every domain: forwards, changed answers, right answers."""
    cells = data["domains"]
    rules = [("unstopped", lambda cell: cell["unstopped"])]
    rules += [(name, lambda cell, name=name: cell["stops"][name]) for name in cells[0]["stops"]]
    rules += [(name, lambda cell, name=name: cell["decoders"][name]) for name in cells[0]["decoders"]]
    rows = []
    for name, of in rules:
        for cell in cells:
            facts = of(cell)
            label = f"{name} ({_rule(facts)})" if "tau" in facts else name
            shares = (_percent(facts.get(what)) for what in ("changed", "accuracy"))
            rows.append([label, cell["domain"], f"{facts['forwards']:.1f}", *shares])
    head = ["decoder", "domain", "forwards", "changed", "right"]
    return f"Tuned on {data['tuned on']}, at most {100 * data['risk']:g} % changed.\n\n{table(head, rows)}\n"


def _rule(cell: Data) -> str:
    guard = "" if cell["max_entropy"] is None else f", entropies < {cell['max_entropy']:g}"
    return f"KL < {cell['tau']:g}{guard}"


def _percent(share: Data | None) -> str:
    return "" if share is None else whole_percent(share)


TABLES: dict[str, Callable[[Data], str]] = {"stops": stops, "trajectories": trajectories, "domains": domains}

"""How each table and figure is shown, by name."""

from collections.abc import Callable

from lrd_jax.research.reproduce import claims, field_claims, figures, front, tables
from lrd_jax.research.reproduce.folder import Setting, Shown

SHOWS: dict[str, Callable[[Setting], Shown | None]] = {
    "table1": tables.table1,
    "table2": tables.table2,
    "table3": tables.table3,
    "table4": tables.table4,
    "figure2": figures.figure2,
    "figure3": figures.figure3,
    "figure4": figures.figure4,
    "figure5": figures.figure5,
    "front": front.show,
    "scan": tables.scan,
    "caches": tables.caches,
    "claims": claims.show,
    "field": field_claims.show,
}

"""Several processes that are one JAX program: they find each other, place arrays, read them back, and agree.

Every process runs the same Python on the same arguments: `connect` first, then the code of one process, with `place`
where arrays go onto a mesh of all devices and `fetch` where their values are wanted. What one process alone can know,
such as a line that was typed, `from_first` tells the others; `agree` refuses what must be equal and is not.
"""

from lrd_jax.pods.agreement import agree, from_first, is_first, process_of
from lrd_jax.pods.arrays import fetch, fetch_to_first, place
from lrd_jax.pods.connecting import COORDINATOR, NUM_PROCESSES, PROCESS_ID, connect

__all__ = [
    "COORDINATOR",
    "NUM_PROCESSES",
    "PROCESS_ID",
    "agree",
    "connect",
    "fetch",
    "fetch_to_first",
    "from_first",
    "is_first",
    "place",
    "process_of",
]

"""A frozen matrix with a low-rank one beside it (LoRA, arXiv 2106.09685): x W + scale (x A) B."""

import flax.struct
import jax


@flax.struct.dataclass
class LowRank:
    """Stands in the place of a stacked kernel in `Params`, for whoever trains; decoding takes plain kernels.

    A scan over the blocks takes the leading axis off all three. A and B are multiplied in the dtype of what comes in.
    """

    kernel: jax.Array  # [layers, *in, *out]
    a: jax.Array  # [layers, *in, r]
    b: jax.Array  # [layers, r, *out]
    scale: float = flax.struct.field(pytree_node=False)

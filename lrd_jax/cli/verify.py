"""`lrd-jax verify`: whether a converted checkpoint still is what was written."""

from lrd_jax.cli.options import Verify
from lrd_jax.cli.progress import tensor_progress
from lrd_jax.convert import verify


def run(options: Verify) -> int:
    with tensor_progress("verifying") as progress:
        info = verify(options.checkpoint, progress=progress)
    print(f"{options.checkpoint}: {len(info.tensors)} tensors are as they were written")
    return 0

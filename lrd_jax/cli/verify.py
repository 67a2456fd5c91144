"""`lrd-jax verify`: whether a converted checkpoint still is what was written."""

import functools

from lrd_jax.cli.options import Verify
from lrd_jax.cli.pod import first_alone
from lrd_jax.cli.progress import tensor_progress
from lrd_jax.convert import verify


def run(options: Verify) -> int:
    count = first_alone("verifying", functools.partial(_verify, options))
    print(f"{options.checkpoint}: {count} tensors are as they were written")
    return 0


def _verify(options: Verify) -> int:
    with tensor_progress("verifying") as progress:
        return len(verify(options.checkpoint, progress=progress).tensors)

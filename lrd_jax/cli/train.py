"""`lrd-jax train`: a training run from a TOML file."""

import dataclasses

from lrd_jax.cli.compile_cache import use_compile_cache
from lrd_jax.cli.options import Train
from lrd_jax.options import mesh_sizes
from lrd_jax.train import read_config, train
from lrd_jax.train.config import Mesh


def run(options: Train) -> int:
    config = read_config(options.config)
    if options.mesh is not None:
        config = dataclasses.replace(config, mesh=Mesh(**mesh_sizes(options.mesh)))
    use_compile_cache()
    print(train(config))
    return 0

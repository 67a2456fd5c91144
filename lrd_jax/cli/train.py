"""`lrd-jax train`: a training run from a TOML file."""

from lrd_jax.cli.options import Train
from lrd_jax.train import read_config, train


def run(options: Train) -> int:
    print(train(read_config(options.config)))
    return 0

"""`lrd-jax train`: a training run from a TOML file."""

from lrd_jax.cli.compile_cache import use_compile_cache
from lrd_jax.cli.options import Train
from lrd_jax.train import read_config, train


def run(options: Train) -> int:
    config = read_config(options.config)
    use_compile_cache()
    print(train(config))
    return 0

"""lm-eval's own command line with the model `lrd-jax`: `python -m lrd_jax.research.benchmarks run --model lrd-jax ...`.

lm-eval 0.4.13 looks for models of other packages nowhere, so they must be imported before its command line starts.
"""

import sys


def main() -> None:
    try:
        from lm_eval.__main__ import cli_evaluate

        import lrd_jax.research.benchmarks.plugin  # noqa: F401  registers the model
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error.name} is missing: pip install 'lrd-jax[eval]'")
    cli_evaluate()


if __name__ == "__main__":
    main()

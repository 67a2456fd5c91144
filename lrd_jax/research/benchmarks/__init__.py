"""Benchmarks through lm-eval: `lrd-jax eval`, and the model that lm-eval's own command line runs.

The way of a sample: lm-eval's task makes the prompt, `requests` plans batches and keeps records, `decoding` turns
prompts into answers, `scoring` grades them, `summary` counts. Only `tasks`, `plugin` and `run` need lm-eval.
"""

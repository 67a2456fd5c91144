"""Latent Refinement Decoding for masked diffusion language models, in JAX."""

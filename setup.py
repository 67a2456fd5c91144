"""Packages are found; `models/` and `convert/` stand at the top of the tree and are installed inside `lrd_jax`."""

from setuptools import find_packages, setup

BESIDE = ("models", "convert")

setup(
    packages=[*find_packages(include=["lrd_jax", "lrd_jax.*"]), *(f"lrd_jax.{name}" for name in BESIDE)],
    package_dir={f"lrd_jax.{name}": name for name in BESIDE},
)

"""`lrd-jax calibrate`: the settings of refinement, stop and mixing that fit a model and its prompts, see `Tuning`.

prompts -> tunable (unstopped decodes) -> outcomes (what any stop would have done) -> scan or certificate -> preset
file.
"""

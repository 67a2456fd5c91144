"""The paper's open questions, measured: `lrd-jax analyze`.

What any stop would have done is read from the record of an unstopped decode (`lrd_jax.research.record`, `stops`,
`domains`); what masked positions feed back, and when refinement stops contracting, is in `trajectories`.
"""

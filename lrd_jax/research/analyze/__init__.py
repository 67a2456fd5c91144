"""The paper's open questions, measured: `lrd-jax analyze`.

`walk` records an unstopped decode forward by forward. What any stop would have done is read from that record (`stops`,
`domains`); what masked positions feed back, and when refinement stops contracting, is in `trajectories`.
"""

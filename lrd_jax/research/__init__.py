"""Everything that measures: benchmarks, reproduction, analysis, calibration, timing. Used by the command line alone.

They share `results` (what survives a kill), `record` (decodes that never stop, and what stops would have made of them),
`decoders` (those that are compared, by name), `statistics` (intervals and fronts), `markdown` and `plots`.
"""

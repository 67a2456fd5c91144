"""Everything that measures: benchmarks, reproduction, analysis, calibration, timing. Used by the command line alone."""

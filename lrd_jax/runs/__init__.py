"""Batch runs: a file of prompts in, a file of answers out, over as many machines as there are.

What a run has answered is on the disk in parts, each whole: a kill at any moment costs what was not yet in one, and the
same command goes on from there.
"""

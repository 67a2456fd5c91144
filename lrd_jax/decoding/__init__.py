"""The decoding core: one step of verbs, a loop over it, and the parts that answer each question.

Knows no files, no text and no command.
"""

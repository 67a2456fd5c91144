"""The paper's tables and figures on any model: what is measured, how it is shown, which claims hold.

`options` is what can be asked, `decoders` and `exhibits` are what is measured, `results` reads what was; `tables`,
`figures`, `front` and `claims` show it, and `run` is the command.
"""

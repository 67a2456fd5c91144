"""The paper's tables and figures on any model: what is measured, how it is shown, which claims hold.

`options` is what can be asked, `decoders` and `exhibits` are what is measured, `timing` is what a forward costs;
`results` reads what was measured, `tables`, `figures`, `front` and `claims` show it, and `run` is the command.
"""

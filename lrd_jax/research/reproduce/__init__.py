"""The paper's tables and figures on any model: what is measured, how it is shown, which claims hold.

`options` is what can be asked, `decoders` and `exhibits` are what is measured, `timing` is what a forward costs;
`folder` reads what was measured, `tables`, `figures`, `front`, `claims` and `field_claims` show it; `reproduction` does
all of it.
"""

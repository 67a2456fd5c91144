"""What a program takes on devices that are not there: bytes, time and traffic, planned before a slice is rented.

A `Job` says what is compiled (`decode.py`: a decode), `compiling.py` has the TPU compiler do it in a process of its
own, `hlo.py` reads what came out, and `planner.py` goes through the meshes.
"""

"""The one class of errors that speak to users."""


class Refused(ValueError):
    """What was asked for cannot be: the message says what came, what was wanted, and what to do.

    Everything in this package that refuses raises it, or a class of it; the command line prints its words alone. Any
    other error, an ordinary `ValueError` too, is a bug and keeps its traceback.
    """

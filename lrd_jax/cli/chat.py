"""`lrd-jax chat`: questions line by line until the input ends."""

import sys

from lrd_jax.cli.options import Chat
from lrd_jax.cli.terminal import ask, open_session, say


def run(options: Chat) -> int:
    session = open_session(options)
    by_hand = sys.stdin.isatty()
    while True:
        try:
            question = input("> " if by_hand else "")
        except EOFError:
            if by_hand:
                print()
            return 0
        if not question.strip():
            continue
        try:
            say(ask(session, question, options, chat=options.chat))
        except ValueError as error:
            if not by_hand:
                raise
            print(f"error: {error}", file=sys.stderr)

"""`lrd-jax generate`: one question, one answer."""

import json

from lrd_jax.cli import INCOMPLETE
from lrd_jax.cli.options import Generate
from lrd_jax.cli.terminal import ask, open_session, say


def run(options: Generate) -> int:
    session = open_session(options)
    if options.json:
        answer = session.answer(options.question, chat=options.chat)
        asked = {"model": options.model, "preset": options.preset, "gen_length": options.gen_length}
        print(json.dumps({**answer.to_json(), **asked}, ensure_ascii=False), flush=True)
    else:
        answer = ask(session, options.question, options, chat=options.chat)
        say(answer)
    return 0 if answer.complete else INCOMPLETE

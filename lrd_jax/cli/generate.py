"""`lrd-jax generate`: one question, one answer; or a file of questions, an answer a line."""

import codecs
import json
import sys
from typing import TYPE_CHECKING, Any

from lrd_jax.cli import INCOMPLETE
from lrd_jax.cli.files import argument, lines_of, output, prompt_of, text_of
from lrd_jax.cli.options import Generate
from lrd_jax.cli.terminal import ask, complain, open_generator, say, tell
from lrd_jax.errors import Refused

if TYPE_CHECKING:
    from lrd_jax.generate import Generator


def run(options: Generate) -> int:
    if options.input is not None:
        return _answer_file(options)
    question = _question(options)
    if not question.strip():
        raise Refused("the question is empty; ask something, in quotes")
    with output(options.output) as file:
        from lrd_jax.cli.session import said, seed_for
        from lrd_jax.text import UnknownWords

        try:
            pieces = _pieces(options.canvas)

            def check(empty: "Generator") -> None:
                empty.encode(_prompt(question, options), chat=options.chat)
                if pieces is not None:
                    empty.encode_canvas(pieces)

            generator = open_generator(options, check=check)
            seed = seed_for(options, generator.config)
            canvases = None if pieces is None else [pieces]
            asked = {"seed": seed, "stop": options.stop_text, "chat": options.chat, "canvases": canvases}
            if options.json or options.output is not None:
                (answer,) = generator.generate([_prompt(question, options)], **asked)
            else:
                answer = ask(generator, _prompt(question, options), options, **asked)
        except UnknownWords as error:
            raise Refused(said(error)) from None
        if options.json:
            print(json.dumps({**answer.to_json(), **_asked(options, seed)}, ensure_ascii=False), file=file)
            complain([answer])
        elif options.output is not None:
            print(answer.text, file=file)
            if not complain([answer]):
                tell(answer.facts, seed)
        else:
            say(answer, seed)
    return 0 if answer.complete else INCOMPLETE


def _question(options: Generate) -> str:
    """The question of the command line, or all of standard input."""
    if options.question != "-":
        return argument(options.question)
    from lrd_jax.pods import from_first

    return from_first(_piped)


def _piped() -> str:
    if sys.stdin.isatty():
        raise Refused("no question was given; ask something, in quotes, by a pipe, or many with --input FILE")
    return text_of(sys.stdin.buffer.read().removeprefix(codecs.BOM_UTF8))


def _answer_file(options: Generate) -> int:
    """An answer a line; a line that cannot be answered gets its error, and the others their answers."""
    if options.output is not None and options.output.exists() and options.output.samefile(options.input):
        raise Refused(f"--output {options.output} is the --input, which it would replace: name another file")
    lines = lines_of(options.input.read_bytes())
    with output(options.output) as file:
        generator = open_generator(options, batch=options.batch)
        from lrd_jax.cli.session import seed_for

        seed = seed_for(options, generator.config)
        prompts, canvases, errors = _prompts(lines, options, generator)
        answers = generator.generate(
            list(prompts.values()),
            keys=None if seed is None else _keys(seed, list(prompts)),
            stop=options.stop_text,
            chat=options.chat,
            canvases=list(canvases.values()) if any(canvases.values()) else None,
        )
        answered = dict(zip(prompts, answers, strict=True))
        for place in range(len(lines)):
            answer, error = answered.get(place), errors.get(place)
            if error is not None:
                print(f"error: {options.input} line {place + 1}: {error}", file=sys.stderr)
            if options.json:
                got = {"error": error} if answer is None else answer.to_json()
                print(json.dumps({"line": place + 1, **got, **_asked(options, seed)}, ensure_ascii=False), file=file)
            else:
                print("" if answer is None else answer.text.replace("\n", "\\n"), file=file)
    seconds = sum(answer.seconds for answer in answers)
    tokens = sum(len(answer.tokens) for answer in answers)
    complain(answers)
    tell(f"{len(answers)} answers, {len(errors)} errors | {tokens} tokens in {seconds:.2f} s", seed)
    return 0 if not errors and all(answer.complete for answer in answers) else INCOMPLETE


def _prompts(
    lines: list[bytes], options: Generate, generator: "Generator"
) -> tuple[dict[int, Any], dict[int, Any], dict[int, str]]:
    """What can be asked, by line: prompts, and canvases with holes or None; and what is wrong with the rest."""
    as_json = options.input.suffix in (".json", ".jsonl")
    prompts, canvases, errors = {}, {}, {}
    for place, line in enumerate(lines):
        try:
            prompt, canvas = prompt_of(line, as_json=as_json)
            prompt, canvas = _prompt(prompt, options), _pieces(options.canvas if canvas is None else canvas)
            generator.encode(prompt, chat=options.chat)
            if canvas is not None:
                generator.encode_canvas(canvas)
            prompts[place], canvases[place] = prompt, canvas
        except Refused as error:
            errors[place] = str(error)
    return prompts, canvases, errors


def _pieces(canvas: str | None) -> list[Any] | None:
    """A canvas with holes as a generator takes it."""
    from lrd_jax.text import parse_holes

    return None if canvas is None else parse_holes(canvas)


def _prompt(prompt: Any, options: Generate) -> Any:
    """The prompt, or the conversation that a system prompt begins."""
    if options.system is None:
        return prompt
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(messages, list):
        return messages  # no conversation, as the generator will say
    return [{"role": "system", "content": options.system}, *messages]


def _keys(seed: int, places: list[int]) -> list:
    """A line's draws depend on the seed and its place in the file, whatever is wrong with other lines."""
    import jax

    key = jax.random.key(seed)
    return [jax.random.fold_in(key, place) for place in places]


def _asked(options: Generate, seed: int | None) -> dict[str, Any]:
    asked: dict[str, Any] = {"model": options.model, "preset": options.preset, "gen_length": options.gen_length}
    asked |= {"changes": options.changes} if options.changes else {}
    return asked if seed is None else {**asked, "seed": seed}

"""One request whose answers are given: labels, scored by a forward a prompt, in turns with everybody else's."""

import asyncio
import time
from collections.abc import Sequence

from lrd_jax.errors import Refused
from lrd_jax.labels import Label, Scoring
from lrd_jax.serve.connection import Receive, until_gone
from lrd_jax.serve.desk import Desk
from lrd_jax.serve.errors import Gone, Told


class Scorings:
    """The prompts of one request.

    Attributes:
      began: when, by the monotonic clock.
    """

    def __init__(self, desk: Desk, asked: Sequence[Scoring]):
        """
        Raises:
          Told: 429 where as many answers wait as may.
        """
        desk.require_room(len(asked))
        self.began = time.monotonic()
        self._desk, self._asked = desk, asked
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def prompt_tokens(self) -> int:
        return sum(len(one.prompt) for one in self._asked)

    async def scored(self, receive: Receive) -> list[tuple[int, list[Label]]]:
        """The tokens and the labels of each prompt.

        Args:
          receive: of the connection, whose end it notices.

        Raises:
          Gone: the client is.
          Told: the engines failed, or the server shuts down.
        """
        watch, work = asyncio.create_task(self._watch(receive)), asyncio.create_task(self._work())
        work.add_done_callback(lambda task: task.cancelled() or task.exception())  # told, or nobody is there to hear it
        try:
            await asyncio.wait({work, self._ended}, return_when=asyncio.FIRST_COMPLETED)
            if self._ended.done():
                self._ended.result()
            return work.result()
        finally:
            watch.cancel()
            work.cancel()
            self._ended.cancel()

    def interrupt(self, error: Exception) -> None:
        """Ends it with an error, in the event loop's thread."""
        if not self._ended.done():
            self._ended.set_exception(error)

    async def _work(self) -> list[tuple[int, list[Label]]]:
        found = []
        self._desk.scoring += len(self._asked)
        try:
            for one in self._asked:
                labels = await asyncio.get_running_loop().run_in_executor(self._desk.scorer, self._score, one)
                found.append((len(one.prompt), labels))
                self._desk.scoring -= 1
        finally:
            self._desk.scoring -= len(self._asked) - len(found)
        return found

    def _score(self, one: Scoring) -> list[Label]:
        one.compile()  # here, beside the rounds of the engines
        try:
            return self._desk.call(one.run)
        except Refused as error:
            raise Told(503, str(error)) from None

    async def _watch(self, receive: Receive) -> None:
        await until_gone(receive)
        self.interrupt(Gone())

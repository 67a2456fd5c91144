"""What Prometheus is told: vLLM's names behind "lrd:", and those of a diffusion decode."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from lrd_jax.answer import Answer
from lrd_jax.engine import Handle
from lrd_jax.serve.asking import Asking
from lrd_jax.serve.desk import Desk

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Meter:
    """Counts of one server."""

    def __init__(self, desk: Desk):
        self._registry = registry = CollectorRegistry()

        def gauge(name: str, words: str, value) -> None:
            Gauge(f"lrd:{name}", words, registry=registry).set_function(value)

        def counter(name: str, words: str, labels=()) -> Counter:
            return Counter(f"lrd:{name}", words, labels, registry=registry)

        def histogram(name: str, words: str, buckets=_SECONDS) -> Histogram:
            return Histogram(f"lrd:{name}", words, registry=registry, buckets=buckets)

        gauge("num_requests_running", "Answers in a slot.", lambda: desk.running)
        gauge("num_requests_waiting", "Answers that wait for a slot.", lambda: desk.waiting)
        gauge("slots", "Slots of all engines.", lambda: desk.slots)
        gauge("slots_used", "Slots with a row, of all.", lambda: desk.running / desk.slots)
        self._prompt = counter("prompt_tokens", "Tokens of prompts.")
        self._generated = counter("generation_tokens", "Tokens of answers.")
        self._forwards = counter("forwards", "Forwards of rows, refinement included.")
        self._success = counter("request_success", "Answers by how they ended.", ("finished_reason",))
        self._refused = counter("request_refused", "Requests that were refused.", ("status",))
        self._gone = counter("request_cancelled", "Requests whose client went away.")
        self._first = histogram("time_to_first_token_seconds", "From a request to its first text.")
        self._queued = histogram("request_queue_time_seconds", "From a row's request to its slot.")
        self._end = histogram("e2e_request_latency_seconds", "From a request to the end of its last answer.")
        self._each = histogram(
            "request_time_per_output_token_seconds", "Of a row, a token.", tuple(x / 100 for x in _SECONDS)
        )
        self._a_forward = histogram(
            "tokens_per_forward", "Tokens of an answer a forward.", (0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 16, 32)
        )

    def row(self, handle: Handle, answer: Answer, count: int) -> None:
        """An answer, `count` tokens of it not given."""
        self._generated.inc(count)
        self._forwards.inc(answer.forwards)
        self._success.labels(answer.finish).inc()
        if handle.begun is not None:
            self._queued.observe(handle.begun - handle.submitted)
        if count:
            self._each.observe(answer.seconds / count)
        if answer.forwards:
            self._a_forward.observe(count / answer.forwards)

    def request(self, asking: Asking, seconds: float) -> None:
        """A request whose answers are all there."""
        self._prompt.inc(asking.prompt_tokens)
        self._end.observe(seconds)
        if asking.first_text is not None:
            self._first.observe(asking.first_text)

    def scored(self, tokens: int, prompts: int, seconds: float) -> None:
        """A request whose labels are there, by a forward a prompt."""
        self._prompt.inc(tokens)
        self._forwards.inc(prompts)
        self._success.labels("stop").inc(prompts)
        self._end.observe(seconds)

    def refused(self, status: int) -> None:
        self._refused.labels(str(status)).inc()

    def gone(self) -> None:
        self._gone.inc()

    def text(self) -> bytes:
        """The page."""
        return generate_latest(self._registry)

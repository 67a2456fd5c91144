"""The model as the loop knows it; `lrd_jax.models.Model` is one."""

from collections.abc import Callable
from typing import Any, Protocol

import jax

from lrd_jax.models import LogitAlignment
from lrd_jax.models.transformer import KeyValues, Transformer


class Vocabulary(Protocol):
    """What the loop reads of a model's config: its tokens, its context, and where logits stand."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def max_length(self) -> int: ...
    @property
    def alignment(self) -> LogitAlignment: ...
    @property
    def mask_id(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    @property
    def end_ids(self) -> tuple[int, ...]: ...


class Head(Protocol):
    """What a reading needs of a model: from hidden states to logits."""

    @property
    def config(self) -> Vocabulary: ...
    def table(self, params: Any) -> jax.Array: ...
    def logits(self, params: Any, hidden: jax.Array) -> jax.Array: ...


def attention_block_of(model: Head) -> int | None:
    """Positions of a block where a model attends block by block; None: to everything, as one that does not say."""
    return getattr(model.config, "attention_block", None)


class Denoiser(Head, Protocol):
    """What a decode needs of a model: pure functions of `params`. It must be hashable: it is a static argument.

    `hidden` is enough without a cache, and `bind` is for caches that compose blocks otherwise; `lrd_jax.models.Model`
    says what each function takes and gives.
    """

    def embed(self, params: Any, ids: jax.Array) -> jax.Array: ...
    def hidden(self, params: Any, embeddings: jax.Array, positions: jax.Array, mask: jax.Array) -> jax.Array: ...
    def hidden_and_cache(
        self, params: Any, embeddings: jax.Array, positions: jax.Array, mask: jax.Array, cache: KeyValues | None = None
    ) -> tuple[jax.Array, KeyValues]: ...
    def layers(
        self, params: Any, embeddings: jax.Array, positions: jax.Array, attend: Callable[..., Any], cache: Any
    ) -> tuple[jax.Array, Any]: ...
    def bind(self, params: Any) -> Transformer: ...
    def empty_cache(self, params: Any, batch: int, length: int) -> KeyValues: ...

"""How long beliefs are refined before tokens are committed."""

from lrd_jax.decoding.setting import check_count, check_name, check_range, setting, static


@setting
class Refine:
    """How long beliefs are refined before tokens are committed.

    Refinement ends at the forward where D_t < tau, or at forward number `max_steps` of it (T_refine; the first counts),
    and that same forward commits (Eq. 7 holds for t = t*).

    Attributes:
      tau: settled below this, nats.
      max_steps: T_refine.
      before: "block", once at the start of a block; "commit", anew before every commit.
    """

    tau: float = 0.1
    max_steps: int = static(20)
    before: str = static("block")

    def __post_init__(self):
        check_range(self, "tau", 0)
        check_count(self, "max_steps")
        check_name(self, "before", ("block", "commit"))

    @classmethod
    def times(cls, k: int) -> "Refine":
        """`k` refinements before every commit (the paper's LFxk): nothing is below tau = 0, so all are run."""
        return cls(tau=0.0, max_steps=k + 1, before="commit")

    @classmethod
    def auto(cls, tau: float = 0.1, max_steps: int = 20) -> "Refine":
        """Refinement until settled before every commit (the paper's Auto)."""
        return cls(tau=tau, max_steps=max_steps, before="commit")

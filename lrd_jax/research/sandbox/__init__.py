"""Runs code that a model wrote, and nothing of this package, so that it imports at once.

limits -> what a program may use; bubblewrap, seccomp -> the walls around it; launcher -> what happens inside, before
the program; running -> one process inside; values -> what crosses between two; answering, judging -> a program and its
tests, each inside; exam -> which is which; sandbox -> one run and how it went; programs -> HumanEval and MBPP.
"""

from lrd_jax.research.sandbox.exam import Exam as Exam
from lrd_jax.research.sandbox.limits import Limits as Limits
from lrd_jax.research.sandbox.programs import code_of as code_of
from lrd_jax.research.sandbox.programs import exam_for as exam_for
from lrd_jax.research.sandbox.programs import judge as judge
from lrd_jax.research.sandbox.running import Status as Status
from lrd_jax.research.sandbox.sandbox import Outcome as Outcome
from lrd_jax.research.sandbox.sandbox import Sandbox as Sandbox
from lrd_jax.research.sandbox.sandbox import SandboxError as SandboxError
from lrd_jax.research.sandbox.sandbox import Verdict as Verdict
from lrd_jax.research.sandbox.sandbox import available as available

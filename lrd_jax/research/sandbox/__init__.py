"""Runs code that a model wrote, and nothing of this package, so that it imports at once.

limits -> what a program may use; bubblewrap -> the namespaces around it; launcher -> what happens inside, before the
program; sandbox -> one run and how it went; programs -> HumanEval and MBPP.
"""

from lrd_jax.research.sandbox.limits import Limits as Limits
from lrd_jax.research.sandbox.programs import Verdict as Verdict
from lrd_jax.research.sandbox.programs import code_of as code_of
from lrd_jax.research.sandbox.programs import judge as judge
from lrd_jax.research.sandbox.programs import program_for as program_for
from lrd_jax.research.sandbox.sandbox import Outcome as Outcome
from lrd_jax.research.sandbox.sandbox import Sandbox as Sandbox
from lrd_jax.research.sandbox.sandbox import SandboxError as SandboxError
from lrd_jax.research.sandbox.sandbox import Status as Status
from lrd_jax.research.sandbox.sandbox import available as available

"""All cases, by name."""

from tests.engine.published.addons import ADD_ONS
from tests.engine.published.checkpoints import CHECKPOINTS

__all__ = ["CASES"]

CASES = CHECKPOINTS | ADD_ONS

"""The compiled leaves of penstock. `_native.pyi` is the contract, and its `__all__` the list."""

from penstock.ext._native import *  # noqa: F403
from penstock.ext._native import __all__ as __all__

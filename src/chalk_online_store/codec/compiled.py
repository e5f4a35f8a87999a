"""The compiled kernels, if they were built.

Code that calls a kernel has the same in Python, which also reads or writes what the kernel leaves
to it. `_kernels.pyi` describes the kernels.
"""

from __future__ import annotations

import importlib
import logging
import os
from typing import TYPE_CHECKING, Any

from chalk_online_store.logs import event

__all__ = ["Frame", "compiled", "kernels"]

logger = logging.getLogger(__name__)


def _import_kernels() -> Any:
    try:
        return importlib.import_module("chalk_online_store.codec._kernels")
    except ImportError:  # No C compiler was there when the library was installed.
        logger.info(
            "The compiled decoder is not installed; the Python decoder reads the same items in"
            " more CPU time.",
            extra=event("compiled.absent"),
        )
        return None


_kernels = _import_kernels()

compiled: bool = _kernels is not None
"""True if the part in C was built when the library was installed."""

if TYPE_CHECKING:
    from chalk_online_store.codec._kernels import Frame
elif compiled:
    Frame = _kernels.Frame
else:

    class Frame:
        """The class of a compiled decoder's rows. Without the compiled part it has no instances."""


def kernels() -> Any:
    """Return the module of the compiled kernels; None if it was not built, or is disabled.

    The environment variable `CHALK_ONLINE_STORE_PURE` disables it.
    """
    return None if os.environ.get("CHALK_ONLINE_STORE_PURE") else _kernels

"""Schemas that are named on the command line."""

from __future__ import annotations

import importlib
import sys

from chalk_online_store.errors import InvalidSchema, OnlineStoreError
from chalk_online_store.schema import Namespace, namespaces


def namespace_called(name: str) -> Namespace:
    """The namespace called `module:Class`; modules of the working directory are found, too."""
    module, _, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except OnlineStoreError:
        raise
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidSchema(f"--schema {name}: {error}; it is module:Class.") from error
    except Exception as error:  # Whatever a module of the user's does as it is imported.
        what = f"{type(error).__name__}: {error}"
        raise InvalidSchema(f"--schema {name}: {module} cannot be imported: {what}.") from error
    return next(iter(namespaces([found]).values()))

"""Objects of the user's modules, named as `module:Name`."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from chalk_online_store.errors import InvalidSchema, OnlineStoreError
from chalk_online_store.schema import Namespace, namespaces


def load_object(name: str, argument: str) -> Any:
    """Import the object called `module:Name`; modules of the working directory are found, too.

    `argument` is the option or setting that names it. Raises `InvalidSchema`.
    """
    module, _, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module), attribute)
    except OnlineStoreError:
        raise
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidSchema(f"{argument} {name}: {error}; it is module:Class.") from error
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise InvalidSchema(f"{argument} {name}: {module} cannot be imported: {what}.") from error


def load_namespace(name: str, argument: str) -> Namespace:
    """Import the namespace called `module:Class`. Raises `InvalidSchema`."""
    return next(iter(namespaces([load_object(name, argument)]).values()))

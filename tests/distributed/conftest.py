"""A table for each test, and workers that find the modules of the tests."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

import pytest

from chalk_online_store.testing import Dynoxide, create_table

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def _environment() -> None:
    """Workers are processes of their own: they inherit the environment."""
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    )
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["AWS_ACCESS_KEY_ID"] = os.environ["AWS_SECRET_ACCESS_KEY"] = "local"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"


@pytest.fixture
def url(dynoxide: Dynoxide) -> str:
    name = f"table-{uuid.uuid4().hex}"
    create_table(dynoxide.endpoint_url, name)
    return dynoxide.url(name)

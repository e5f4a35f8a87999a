"""The CRC32 of responses by the fastest module that is installed."""

from __future__ import annotations

import random
import sys
import types
import zlib

import pytest

from chalk_online_store.dynamodb.responses import crc32, find_crc32

MODULES = ("isal.isal_zlib", "zlib_ng.zlib_ng")


def test_the_crc32_in_use_is_that_of_zlib() -> None:
    """Whatever computes it, the checksum of any bytes is zlib's."""
    draw = random.Random(1)
    for size in [*range(70), 1000, 69_143]:
        body = draw.randbytes(size)
        assert crc32(body) == zlib.crc32(body)


@pytest.mark.parametrize("installed", [(), MODULES[:1], MODULES[1:], MODULES])
def test_isal_comes_before_zlib_ng_before_zlib(
    installed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what is installed the fastest is used, and zlib if neither of the two is."""
    functions = {name: lambda body, name=name: hash((name, body)) for name in MODULES}
    for name in MODULES:
        package, module = types.ModuleType(name.partition(".")[0]), types.ModuleType(name)
        vars(module)["crc32"] = functions[name]
        is_there = name in installed
        monkeypatch.setitem(sys.modules, name.partition(".")[0], package if is_there else None)
        monkeypatch.setitem(sys.modules, name, module if is_there else None)
    expected = functions[installed[0]] if installed else zlib.crc32
    assert find_crc32() is expected


@pytest.mark.parametrize("name", MODULES)
def test_the_real_modules_agree(name: str) -> None:
    """Each of the two, if it is installed, computes zlib's checksum."""
    module = pytest.importorskip(name)
    body = random.Random(2).randbytes(69_143)
    assert module.crc32(body) == zlib.crc32(body)

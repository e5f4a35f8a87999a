"""The files that a load reads: paths, globs, directories, URLs, and standard input."""

from __future__ import annotations

import glob
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs
import xxhash

from chalk_online_store.cli import WrongUsage
from chalk_online_store.errors import InvalidValue

STDIN = "-"
FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_URL = re.compile(r"[a-z][a-z0-9+.-]*://")
_WILD = re.compile(r"[*?\[]")
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file. `partitions` are the columns that its directories name, as in `country=ch/`."""

    name: str
    format: str
    compression: str | None
    size: int
    modified: int
    filesystem: Any
    path: str
    partitions: tuple[tuple[str, str | None], ...] = ()

    def stream(self) -> Any:
        """Open the file for reading from its beginning, decompressed."""
        return self.filesystem.open_input_stream(self.path, compression=self.compression)

    def random_access(self) -> Any:
        """Open the file for reading anywhere; raises `InvalidValue` for a compressed one."""
        if self.compression is not None:
            raise InvalidValue(
                f"{self.name} is compressed as a whole, and a {self.format} file is read from its "
                "end: decompress it. Its columns can be compressed instead."
            )
        return self.filesystem.open_input_file(self.path)


def input_files(locations: Sequence[str], kind: str | None) -> list[InputFile]:
    """Return the files of some locations, in the order of their names.

    `kind` is the format of all files; by default the end of a name says it. Raises `InvalidValue`
    if there is no file, or one of no known format.
    """
    found: list[InputFile] = []
    for location in locations:
        try:
            some = list(_files_of(location, kind))
        except (OSError, pa.ArrowInvalid) as error:
            raise InvalidValue(f"{location} cannot be read: {_first_line(error)}") from None
        if not some:
            raise WrongUsage(f"{location}: there is no such file, or the directory has none.")
        found += some
    return found


def beside(location: str, ending: str) -> Path:
    """Return where files about a load are kept: beside a local file, else in this directory."""
    if location == STDIN:
        return Path(f"stdin{ending}")
    if _URL.match(location) or _WILD.search(location):
        name = re.sub(r"[*?\[\]]+", "_", PurePosixPath(location).name)
        return Path(f"{name}{ending}")
    path = Path(location)
    return path.with_name(f"{path.name}{ending}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _files_of(location: str, kind: str | None) -> Iterator[InputFile]:
    if location == STDIN:
        yield _stdin(kind)
        return
    if _URL.match(location):
        filesystem, path = pyarrow.fs.FileSystem.from_uri(location)
    else:
        filesystem, path = pyarrow.fs.LocalFileSystem(), location
    for info, root in _infos(filesystem, path):
        yield _file(filesystem, info, root, kind)


def _infos(filesystem: Any, path: str) -> Iterator[tuple[Any, str]]:
    """Files, and the directory that each was found in."""
    local = isinstance(filesystem, pyarrow.fs.LocalFileSystem)
    info = filesystem.get_file_info(path)
    if info.type == pyarrow.fs.FileType.Directory:
        yield from ((each, path) for each in _below(filesystem, path))
    elif info.type == pyarrow.fs.FileType.File:
        yield info, str(PurePosixPath(path).parent)
    elif local and _WILD.search(path):
        for each in sorted(glob.glob(path, recursive=True)):  # noqa: PTH207 - absolute or not.
            if not Path(each).is_dir():
                yield filesystem.get_file_info(each), ""
    elif _WILD.search(path):
        root = path[: _WILD.search(path).start()].rpartition("/")[0]  # type: ignore[union-attr]
        matching = (each for each in _below(filesystem, root) if fnmatch(each.path, path))
        yield from ((each, root) for each in matching)


def _below(filesystem: Any, root: str) -> list[Any]:
    """The files of a directory, without hidden ones such as `_SUCCESS`."""
    every = filesystem.get_file_info(pyarrow.fs.FileSelector(root, recursive=True))
    files = [info for info in every if info.type == pyarrow.fs.FileType.File]
    base = PurePosixPath(root)
    shown = [i for i in files if not _is_hidden(PurePosixPath(i.path).relative_to(base))]
    return sorted(shown, key=lambda info: info.path)


def _is_hidden(path: PurePosixPath) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _file(filesystem: Any, info: Any, root: str, kind: str | None) -> InputFile:
    suffixes = [suffix.lower() for suffix in PurePosixPath(info.path).suffixes]
    compression = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    if compression:
        suffixes.pop()
    kind = kind or (FORMATS.get(suffixes[-1]) if suffixes else None)
    if kind is None:
        known = ", ".join(FORMATS)
        raise InvalidValue(
            f"{info.path}: a file to load ends in one of {known}, and .gz or .zst after that; "
            "or state --format."
        )
    parents = PurePosixPath(info.path).parent.parts[len(PurePosixPath(root).parts) if root else 0 :]
    partitions = [part.split("=", 1) for part in parents if "=" in part]
    return InputFile(
        info.path,
        kind,
        compression,
        info.size or 0,
        info.mtime_ns or 0,
        filesystem,
        info.path,
        tuple((unquote(name), _partition_value(value)) for name, value in partitions),
    )


def _partition_value(text: str) -> str | None:
    """Return a value as Hive writes it into a path: percent-encoded, with a name for null."""
    return None if text == "__HIVE_DEFAULT_PARTITION__" else unquote(text)


def _stdin(kind: str | None) -> InputFile:
    """Standard input, kept in a temporary file: it is read more than once."""
    if kind is None:
        raise WrongUsage("Standard input has no name: state its format, such as --format csv.")
    # The file has no owner that could close it; it has no name either, so it ends with the process.
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115
    shutil.copyfileobj(sys.stdin.buffer, file, _COPY_BYTES)
    file.flush()
    file.seek(0)
    digest = xxhash.xxh3_64()
    while block := file.read(_COPY_BYTES):
        digest.update(block)
    _KEPT.append(file)
    size = file.tell()
    # The digest stands for the time of the last change: the same input goes on where it was.
    modified = digest.intdigest() >> 1
    local = pyarrow.fs.LocalFileSystem()
    return InputFile("standard input", kind, None, size, modified, local, file.name)


_KEPT: list[Any] = []
"""Temporary files, which are removed when they are closed."""

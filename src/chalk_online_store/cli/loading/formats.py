"""How the files of each format are read: in blocks, whose memory does not grow with the file."""

from __future__ import annotations

import codecs
import glob
import io
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.csv
import pyarrow.fs
import pyarrow.parquet
import xxhash

from chalk_online_store.cli import WrongUsage
from chalk_online_store.errors import InvalidValue
from chalk_online_store.integrations.conversion import Column
from chalk_online_store.integrations.texts import Texts

# --- The files that a load reads: paths, globs, directories, URLs, and standard input ------


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


_PARQUET_ROWS = 10_000
_PARQUET_BYTES = 32 << 20
"""Maximum of a block, by the size that the file states, without compression."""

_PARQUET_BUFFER_BYTES = 256 << 10
"""Read buffer of a column. Without one, pyarrow reads a column of a whole row group into memory."""

_TEXT_BYTES = 4 << 20
"""Bytes of CSV and JSON Lines that are read at once."""

_LINES = 5_000
_LINES_CHARACTERS = 4 << 20
"""Maximum of a block of JSON Lines, but for its last line."""


@dataclass(frozen=True, slots=True)
class TextOptions:
    """How files of text are read; `nulls` are the unquoted texts of CSV that mean a null."""

    encoding: str = "utf8"
    nulls: tuple[str, ...] = ("",)
    delimiter: str = ","


class Broken(NamedTuple):
    """A row that is none, such as one with too many cells: its text, and why."""

    text: str
    error: InvalidValue


@dataclass(slots=True)
class Block:
    """Some rows of a file: as columns, or as lines of JSON."""

    rows: int
    columns: dict[str, Column] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """The memory that the values take, about."""
        arrays: Iterator[Any] = (
            c.array if isinstance(c, Texts) else c for c in self.columns.values()
        )
        return int(sum(array.nbytes for array in arrays) + sum(map(len, self.lines)))


@dataclass(slots=True)
class Opened:
    """An open file. `schema` is None for lines of JSON, `count` where the file does not say it."""

    schema: pa.Schema | None
    blocks: Iterator[Block]
    count: int | None
    close: Callable[[], None]

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_file(file: InputFile, options: TextOptions) -> Opened:
    """Open a file of any format. Raises `InvalidValue` for what cannot be read."""
    with _readable(file, options):
        return _FORMATS[file.format](file, options)


class _readable:  # noqa: N801 - a context manager that is used as a function.
    """Turns pyarrow's errors into a sentence that names the file."""

    def __init__(self, file: InputFile, options: TextOptions) -> None:
        self._file = file
        self._options = options

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, pa.ArrowCancelled):  # By SIGINT or SIGTERM, which pyarrow handles.
            raise KeyboardInterrupt
        if isinstance(error, UnicodeError) or "invalid UTF8" in str(error):
            raise InvalidValue(
                f"{self._file.name} is not encoded in {self._options.encoding}: state the encoding "
                "that it has, such as --encoding latin-1."
            ) from None
        if isinstance(error, OSError | pa.ArrowException) and not isinstance(error, InvalidValue):
            # The message may quote a cell, as in "conversion error: invalid value '…'".
            text = (str(error).splitlines() or [""])[0].partition("invalid value")[0]
            raise InvalidValue(f"{self._file.name} cannot be read: {text}") from None


def _guarded(file: InputFile, options: TextOptions, blocks: Iterator[Block]) -> Iterator[Block]:
    while True:
        with _readable(file, options):
            block = next(blocks, None)
        if block is None:
            return
        yield block


def _parquet(file: InputFile, options: TextOptions) -> Opened:
    source = file.random_access()
    opened = pyarrow.parquet.ParquetFile(
        source, buffer_size=_PARQUET_BUFFER_BYTES, pre_buffer=False
    )
    blocks = _blocks(opened.iter_batches(_rows_per_block(opened.metadata)), file)
    count = opened.metadata.num_rows
    return Opened(opened.schema_arrow, _guarded(file, options, blocks), count, opened.close)


def _rows_per_block(metadata: Any) -> int:
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    row_bytes = max((g.total_byte_size // max(1, g.num_rows) for g in groups), default=0)
    return int(max(1, min(_PARQUET_ROWS, _PARQUET_BYTES // max(1, row_bytes))))


def _arrow(file: InputFile, options: TextOptions) -> Opened:
    if file.compression is None:
        source = file.random_access()
        try:
            opened = pa.ipc.open_file(source)
        except pa.ArrowInvalid:  # Not the file format, but the stream.
            source.close()
        else:
            batches = (opened.get_batch(number) for number in range(opened.num_record_batches))
            blocks = _guarded(file, options, _blocks(batches, file))
            return Opened(opened.schema, blocks, None, source.close)
    source = file.stream()
    stream = pa.ipc.open_stream(source)
    blocks = _guarded(file, options, _blocks(iter(stream), file))
    return Opened(stream.schema, blocks, None, source.close)


def _blocks(batches: Iterator[pa.RecordBatch], file: InputFile) -> Iterator[Block]:
    for batch in batches:
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        yield Block(batch.num_rows, columns | _partitions(file, batch.num_rows))


def _partitions(file: InputFile, rows: int) -> dict[str, Column]:
    return {name: Texts(pa.array([value] * rows, pa.string())) for name, value in file.partitions}


# --- CSV -----------------------------------------------------------------------------------


def _csv(file: InputFile, options: TextOptions) -> Opened:
    ragged: list[Any] = []

    def skip(row: Any) -> str:
        ragged.append(row)
        return "skip"

    def reader(stream: Any, names: list[str]) -> Any:
        return pyarrow.csv.open_csv(
            stream,
            # Rows have a number only if one thread reads them.
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, block_size=_TEXT_BYTES, encoding=options.encoding
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=options.delimiter, newlines_in_values=True, invalid_row_handler=skip
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=list(options.nulls),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )

    names = _csv_names(file, options)
    ragged.clear()
    source = _CsvStream(file.stream(), options)
    opened = reader(source, names)
    blocks = _guarded(file, options, _csv_blocks(iter(opened), file, ragged, source))
    schema = pa.schema([(name, pa.string()) for name in names])
    return Opened(schema, blocks, None, source.close)


def _csv_names(file: InputFile, options: TextOptions) -> list[str]:
    """The names of the head. All columns must be known, to be read as text."""
    with _CsvStream(file.stream(), options) as source:
        head = pyarrow.csv.open_csv(
            source,
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, block_size=_TEXT_BYTES, encoding=options.encoding
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=options.delimiter,
                newlines_in_values=True,
                invalid_row_handler=lambda _: "skip",
            ),
        )
        return list(head.schema.names)


class _CsvStream(io.RawIOBase):
    """The bytes of a CSV file, with a line end after the last line, and the end of them.

    pyarrow takes a head without a line end for no head. It takes a quoted cell that has no end for
    one that ends with the file. So the end is kept, to find such a cell: it may have swallowed the
    rows that follow it.
    """

    def __init__(self, source: Any, options: TextOptions) -> None:
        self._source = source
        self._encoding = options.encoding
        # Other encodings, such as UTF-16, have longer line ends: they are left as they are.
        self._is_plain = '"\n'.encode(options.encoding) == b'"\n'
        self._end = b""
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        """Read the next bytes."""
        data: bytes = self._source.read(size)
        if len(data) < size and not self._ended:  # pyarrow takes a short read for the last one.
            data += self._source.read(size - len(data))
        self._end = (self._end + data[-_CSV_END:])[-_CSV_END:]
        is_last = len(data) < size and not self._ended
        if is_last:
            self._ended = True
            if self._is_plain and self._end and self._end[-1:] not in b"\r\n":
                data += b"\n"
                self._end += b"\n"
        return data

    def readable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._source.close()
        super().close()

    def ends_within(self, cell: str) -> bool:
        """Return True if the last cell of the file began with a quote, and no quote ends it."""
        if not self._is_plain or not cell:
            return False
        quoted = ('"' + cell.replace('"', '""')).encode(self._encoding, "replace")
        if self._end.rstrip(b"\r\n").endswith(b'"'):
            return False
        return (
            quoted.endswith(self._end)
            if len(quoted) > len(self._end)
            else (self._end.endswith(quoted))
        )


_CSV_END = 64 << 10
"""Bytes at the end of a file that tell whether its last cell ends."""


def _csv_blocks(
    batches: Iterator[pa.RecordBatch], file: InputFile, ragged: list[Any], source: _CsvStream
) -> Iterator[Block]:
    """Batches, each with the rows before its end that have too few or too many cells."""
    row = 2  # The head is row 1.
    batch = next(batches, None)
    while batch is not None:
        following = next(batches, None)
        end, before = row + batch.num_rows, -1
        while before != (before := sum(r.number < end + max(before, 0) for r in ragged)):
            pass
        broken = [_broken(each) for each in ragged[:before]]
        del ragged[:before]
        row = end + before
        if following is None and batch.num_rows and _is_unclosed(batch, source):
            broken.append(_unclosed(batch, row - 1))
            batch = batch.slice(0, batch.num_rows - 1)
        yield _text_block(batch, file, broken)
        batch = following
    if ragged:
        yield Block(0, broken=[_broken(each) for each in ragged])


def _is_unclosed(batch: pa.RecordBatch, source: _CsvStream) -> bool:
    last = batch.column(batch.num_columns - 1)[-1].as_py()
    return last is not None and source.ends_within(last)


def _unclosed(batch: pa.RecordBatch, row: int) -> Broken:
    cells = [column[-1].as_py() or "" for column in batch.columns]
    error = InvalidValue(
        f"Row {row} of the file has a quoted cell that has no closing quote: the rows after it "
        "may be within this cell."
    )
    return Broken(",".join(cells), error)


def _text_block(batch: pa.RecordBatch, file: InputFile, broken: list[Broken]) -> Block:
    columns: dict[str, Column] = {
        name: Texts(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    return Block(batch.num_rows, columns | _partitions(file, batch.num_rows), broken=broken)


def _broken(row: Any) -> Broken:
    error = InvalidValue(
        f"Row {row.number} of the file has {row.actual_columns} cells, and its head has "
        f"{row.expected_columns}."
    )
    return Broken(row.text, error)


# --- JSON Lines ----------------------------------------------------------------------------


def _jsonl(file: InputFile, options: TextOptions) -> Opened:
    source = file.stream()
    lines = (line for line in _lines(source, options.encoding) if line.strip())

    def blocks() -> Iterator[Block]:
        some: list[str] = []
        size = 0
        for line in lines:
            some.append(line)
            size += len(line)
            if len(some) == _LINES or size >= _LINES_CHARACTERS:
                yield Block(len(some), lines=some)
                some, size = [], 0
        if some:
            yield Block(len(some), lines=some)

    return Opened(None, _guarded(file, options, blocks()), None, source.close)


def _lines(source: Any, encoding: str) -> Iterator[str]:
    """The lines of a file; other line ends than those of JSON Lines are part of a line."""
    with_mark = codecs.lookup(encoding).name == "utf-8"  # A mark at the beginning is not content.
    decoder = codecs.getincrementaldecoder("utf-8-sig" if with_mark else encoding)()
    rest, data = "", source.read(_TEXT_BYTES)
    while data:
        *whole, rest = (rest + decoder.decode(data)).split("\n")
        yield from whole
        data = source.read(_TEXT_BYTES)
    yield rest + decoder.decode(b"", final=True)


_FORMATS: dict[str, Callable[[InputFile, TextOptions], Opened]] = {
    "parquet": _parquet,
    "arrow": _arrow,
    "csv": _csv,
    "jsonl": _jsonl,
}

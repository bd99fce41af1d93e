"""Files of a data folder: JSON, .npy arrays and Parquet tables, written completely or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import DataError, DataNotFoundError, MissingDependencyError, first_line
from dmcodec.files import file_sha256, output_file, write_bytes

if TYPE_CHECKING:
    import pyarrow as pa


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataNotFoundError: no such file.
        DataError: not a JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataNotFoundError(f"{path}: is missing; prepare or teach again") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error})") from None
    except ValueError as error:
        raise DataError(f"{path}: is damaged, not JSON ({error}); prepare or teach again") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: is damaged, not a JSON object; prepare or teach again")
    return value


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document; of names that are no UTF-8, the odd bytes are escaped, as JSON escapes them."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy."""
    with output_file(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)


def open_array(path: Path, dtype: Any, ndim: int) -> NDArray[Any]:
    """Map a .npy file into memory, read-only, and check its type.

    Raises:
        DataNotFoundError: no such file.
        DataError: cut short, not .npy, or of another type.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataNotFoundError(f"{path}: is missing; prepare or teach again") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: is damaged ({error}); prepare or teach again") from None
    if array.dtype != np.dtype(dtype) or array.ndim != ndim:
        raise DataError(f"{path}: is damaged, holds {array.dtype} of {array.ndim} dimensions; prepare or teach again")
    return array


def check_size(path: Path, size_bytes: int) -> None:
    """Raise DataNotFoundError or DataError where `path` is not a file of `size_bytes`."""
    try:
        found = path.stat().st_size
    except OSError:
        raise DataNotFoundError(f"{path}: is missing; prepare or teach again") from None
    if found != size_bytes:
        raise DataError(f"{path}: has {found} bytes, not {size_bytes}: cut short or altered; prepare or teach again")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits; DataNotFoundError where it can't be read."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise DataNotFoundError(f"{path}: can't be read ({error.strerror or error})") from None


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file."""
    parquet = parquet_module()
    with output_file(path) as temporary:
        parquet.write_table(table, temporary, compression="zstd")


def read_table(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file.

    Args:
        path: of the file.
        schema: that the file must have.
        columns: to read; None reads all.

    Raises:
        DataNotFoundError: no such file.
        DataError: the file is damaged, or has other columns.
    """
    parquet = parquet_module()
    try:
        found = parquet.read_schema(path)
        table = parquet.read_table(path, columns=columns)
    except FileNotFoundError:
        raise DataNotFoundError(f"{path}: is missing; prepare or teach again") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is damaged ({first_line(error)}); prepare or teach again") from None
    if found.names != schema.names or found.types != schema.types:
        raise DataError(f"{path}: is damaged, its columns are {found.names}; prepare or teach again")
    return table


def arrow() -> Any:
    """Return the module pyarrow.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ModuleNotFoundError:
        raise MissingDependencyError(
            'training data need pyarrow, which is not installed; run `pip install "dmcodec[train]"`'
        ) from None
    return pa


def parquet_module() -> Any:
    """Return the module pyarrow.parquet."""
    arrow()
    import pyarrow.parquet

    return pyarrow.parquet

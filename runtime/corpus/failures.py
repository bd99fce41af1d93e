"""`failures.parquet`: the clips without tokens, and why."""

from __future__ import annotations

from collections.abc import Sequence

from dmcodec.files import output_file

from .plan import FAILURES, Plan
from .reports import Failure


def write_failures(plan: Plan, failures: Sequence[Failure]) -> None:
    """Write the table of failures (id, source, reason), in the order of the corpus; remove it where there are none.

    Raises:
        OutputError: the folder can't be written to.
    """
    path = plan.folder / FAILURES
    if not failures:
        path.unlink(missing_ok=True)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("id", "source", "reason")])
    table = pa.Table.from_pylist([failure.to_dict() for failure in failures], schema)
    with output_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")

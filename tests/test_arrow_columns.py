import numpy as np
import pyarrow as pa
import pytest

from pipeline.arrow_columns import from_binary, to_binary


def test_rows_and_column_share_memory() -> None:
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    column = to_binary(rows)
    assert column.to_pylist() == [bytes(row) for row in rows]
    assert np.shares_memory(from_binary(column, 4), rows)


def test_a_slice_of_a_column_has_only_its_rows() -> None:
    column = pa.array([b"ab", b"cd", b"ef"], pa.binary()).slice(1, 2)
    assert from_binary(column, 2).tobytes() == b"cdef"
    assert from_binary(pa.array([b"ab"], pa.large_binary()), 2).tobytes() == b"ab"
    assert from_binary(pa.array([], pa.binary()), 2).shape == (0, 2)


@pytest.mark.parametrize("values", [[b"ab", b"c"], [b"ab", None]])
def test_unequal_or_missing_values_are_errors(values: list[bytes | None]) -> None:
    with pytest.raises(ValueError, match="null or not 2 bytes"):
        from_binary(pa.array(values, pa.binary()), 2)

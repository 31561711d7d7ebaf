import pyarrow as pa
import pytest

import schemas


@pytest.mark.parametrize("table", schemas.TABLES.values(), ids=lambda table: table.name)
def test_every_column_is_documented(table: schemas.Table) -> None:
    assert table.doc
    assert all(field.metadata[b"doc"] for field in table.schema)


@pytest.mark.parametrize("table", schemas.TABLES.values(), ids=lambda table: table.name)
def test_every_column_survives_delta(table: schemas.Table) -> None:
    lost = (pa.types.is_unsigned_integer, pa.types.is_fixed_size_binary, pa.types.is_dictionary)
    assert not [field.name for field in table.schema if any(test(field.type) for test in lost)]


@pytest.mark.parametrize("table", schemas.TABLES.values(), ids=lambda table: table.name)
def test_partition_columns_are_plain_text_at_the_end(table: schemas.Table) -> None:
    tail = list(table.schema)[len(table.schema) - len(table.partition_by) :]
    assert sorted(field.name for field in tail) == sorted(table.partition_by)
    assert all(pa.types.is_string(field.type) for field in tail)


def test_all_tables_are_registered() -> None:
    names = (
        "images originals rejects shards attributes index bases pairs clusters measurements issues splits scores "
        "misses models predictions verdicts releases exports"
    )
    assert list(schemas.TABLES) == names.split()

"""Tables that fit the terminal: nothing is lost by breaking cells, and every line is as wide as the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.show import Column, lay_out, stack, wide

TEXT = st.text(st.sampled_from("ab/_. -漢字é,;") | st.characters(categories=["L", "N"]), max_size=60)
WIDTHS = st.integers(40, 130)


@st.composite
def columns(draw: st.DrawFn) -> list[Column]:
    rows = draw(st.integers(0, 4))
    cells = st.lists(TEXT, min_size=rows, max_size=rows)
    return draw(st.lists(st.builds(Column, TEXT.filter(len), cells, st.booleans()), min_size=1, max_size=6))


@given(columns(), WIDTHS)
def test_a_table_is_as_wide_as_the_terminal_at_most_and_loses_no_text(made: list[Column], width: int) -> None:
    lines = lay_out(made, width)
    if lines is None:
        return
    assert len({wide(line) for line in lines}) == 1
    assert wide(lines[0]) <= width
    inside = [line[2:-2].split(" ┆ ") for line in lines if line.startswith("│")]
    for at, column in enumerate(made):
        shown = "".join(row[at] for row in inside)
        assert shown.replace(" ", "") == (column.name + "".join(column.cells)).replace(" ", "")


@given(columns(), WIDTHS)
def test_blocks_fit_and_lose_no_text(made: list[Column], width: int) -> None:
    lines = list(stack(made, width))
    assert all(wide(line) <= width for line in lines)
    rows = [line for line in lines if " │ " in line]
    whole = "".join("".join(cells) for cells in zip(*(column.cells for column in made), strict=True))
    assert "".join(line.split(" │ ", 1)[1] for line in rows).replace(" ", "") == whole.replace(" ", "")


@pytest.mark.parametrize(
    ("cells", "width", "fits"),
    [(["9" * 36], 40, True), (["9" * 37], 40, False), (["9" * 20, "9" * 10], 40, True), (["9" * 20] * 2, 40, False)],
)
def test_numbers_are_never_broken(cells: list[str], width: int, fits: bool) -> None:  # noqa: FBT001 - a parameter
    assert (lay_out([Column("n", [cell], is_text=False) for cell in cells], width) is not None) == fits


def test_ids_stay_whole_and_sentences_are_broken_between_words() -> None:
    note = "ingest d/train (train): new; dedup exact: new; splits main: new"
    lines = lay_out([Column("id", ["93" * 16], is_text=True), Column("note", [note], is_text=True)], 72)
    assert lines is not None
    assert sum("93" * 16 in line for line in lines) == 1
    assert any("dedup exact: new; splits main:" in line for line in lines)

"""CSV: which columns are pixels and which the label, by names, values or the recipe; or an error that says why not."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import DATA, handed_out, needs_data, pictures, source_of, turned_away
from numpy.typing import NDArray

from pipeline.errors import SourceError

# Eight rows and columns of which the last pixels are black, as those of digits are.
EIGHT = pictures(40, size=(8, 8))
EIGHT[:, 0] = EIGHT[:, -1] = 0
LABELS = [str(n * 7 % 10) for n in range(40)]
PIXELS = [f"pixel{n}" for n in range(64)]

Columns = Sequence[Sequence[Any]]


def written(folder: Path, header: Sequence[str] | None, columns: Columns, separator: str = ",") -> Path:
    """Write columns of values below a header or none."""
    lines = [*([header] if header else []), *zip(*columns, strict=True)]
    (folder / "a.csv").write_text("".join(separator.join(map(str, line)) + "\n" for line in lines))
    return folder / "a.csv"


def columns_of(images: NDArray[np.uint8]) -> list[list[Any]]:
    return list(images.reshape(len(images), -1).T.tolist())


def read_back(file: Path, made: NDArray[np.uint8] = EIGHT, **options: Any) -> list[str | None]:
    """Hold the pixels to those written, and give the labels."""
    rows = handed_out(source_of(file, **options))
    assert turned_away(source_of(file, **options)) == []
    assert np.array_equal([pixels.squeeze() for *_, pixels in rows], made)
    return [label for _, label, _ in rows]


@pytest.mark.parametrize(
    "name",
    ["label", "Labels", "CLASS", "category", "target", "y", "digit", "character", "cls", "class_name", "Label Id"],
)
@pytest.mark.parametrize("at", [0, 30, 64])
def test_the_label_is_found_by_its_usual_names_wherever_it_stands(tmp_path: Path, name: str, at: int) -> None:
    columns = columns_of(EIGHT)
    columns.insert(at, list(LABELS))
    assert read_back(written(tmp_path, [*PIXELS[:at], name, *PIXELS[at:]], columns)) == LABELS


@pytest.mark.parametrize(
    "name", ["id", "index", "Unnamed: 0", "", "ImageId", "row_id", "idx", "filename", "image", "level_0", "sample_id"]
)
@pytest.mark.parametrize("labelled", [True, False])
def test_columns_that_count_or_name_rows_are_left_out(tmp_path: Path, name: str, *, labelled: bool) -> None:
    index = [f"{n}.png" if name in ("filename", "image") else n for n in range(40)]
    header, columns = [name, *PIXELS], [index, *columns_of(EIGHT)]
    if labelled:
        header, columns = [*header, "target"], [*columns, LABELS]
    assert read_back(written(tmp_path, header, columns)) == (LABELS if labelled else [None] * 40)


GRID = [(row, column) for row in range(8) for column in range(8)]


@pytest.mark.parametrize(
    "names",
    [
        PIXELS,
        [f"pixel{n:04d}" for n in range(64)],
        [f"px{n}" for n in range(1, 65)],
        [f"V{n}" for n in range(2, 66)],
        [f"x{n}" for n in range(64)],
        list(map(str, range(64))),
        [f"pixel {n} value" for n in range(64)],
        [f"{r + 1}x{c + 1}" for r, c in GRID],
        [f"r{r}c{c}" for r, c in GRID],
        [f"pixel_{r}_{c}" for r, c in GRID],
        [f"x{c}y{r}" for r, c in GRID],
        [f"{r}.{c}" for r, c in GRID],
        [f"28x28_{n}" for n in range(64)],
    ],
    ids=lambda names: names[9],
)
def test_numbered_columns_are_pixels_in_the_order_of_their_numbers(tmp_path: Path, names: list[str]) -> None:
    columns = columns_of(EIGHT)
    assert read_back(written(tmp_path, ["label", *names], [LABELS, *columns])) == LABELS
    order = sorted(range(64), key=lambda at: names[at])
    if names[0] not in ("0.0", "1x1", "pixel_0_0"):
        shuffled = [names[at] for at in order]
        file = written(tmp_path, [*shuffled, "label"], [*(columns[at] for at in order), LABELS])
        assert read_back(file) == LABELS


@pytest.mark.parametrize(
    ("names", "shape"),
    [
        ([f"{r}x{c}" for r in range(1, 7) for c in range(1, 5)], (6, 4)),
        ([f"c{c}r{r}" for c in range(4) for r in range(6)], (6, 4)),
        ([f"r{r}_c{c}_{channel}" for r in range(6) for c in range(4) for channel in range(3)], (6, 4, 3)),
        ([f"pixel{n}_{channel}" for n in range(25) for channel in range(3)], (5, 5, 3)),
        ([f"pixel{n}" for n in range(75)], (5, 5, 3)),
    ],
)
def test_names_of_rows_and_columns_tell_the_shape(tmp_path: Path, names: list[str], shape: tuple[int, ...]) -> None:
    made = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    columns = dict(zip(names, columns_of(made), strict=True))
    if names[0] == "c0r0":  # columns come first in the file as well
        columns = {f"c{c}r{r}": made[:, r, c].tolist() for c in range(4) for r in range(6)}
    assert read_back(written(tmp_path, ["label", *columns], [[1] * 5, *columns.values()]), made) == ["1"] * 5


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["first", "last"])
@pytest.mark.parametrize("labels", [LABELS, list("abcdefgh" * 5), [n % 10 + 1000 for n in range(40)]])
def test_without_a_header_the_values_tell_the_label(
    tmp_path: Path, separator: str, end: str, labels: list[Any]
) -> None:
    columns = columns_of(EIGHT)
    columns.insert(0 if end == "first" else 64, labels)
    assert read_back(written(tmp_path, None, columns, separator)) == list(map(str, labels))


@needs_data
@pytest.mark.parametrize("end", ["first", "last"])
def test_mnist_without_a_header_is_read_with_the_label_at_either_end(tmp_path: Path, end: str) -> None:
    def values(name: str, offset: int, width: int) -> NDArray[np.uint8]:
        data = gzip.decompress((DATA / "mnist" / name).read_bytes())
        return np.frombuffer(data, np.uint8, offset=offset).reshape(-1, width)[:200]

    images = values("t10k-images-idx3-ubyte.gz", 16, 784)
    labels = values("t10k-labels-idx1-ubyte.gz", 8, 1)
    table = np.hstack([labels, images] if end == "first" else [images, labels])
    np.savetxt(tmp_path / "a.csv", table, "%d", ",")
    assert read_back(tmp_path / "a.csv", images.reshape(-1, 28, 28)) == list(map(str, labels[:, 0]))


def varied(levels: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, levels, (40, 8, 8)).astype(np.uint8)


@pytest.mark.parametrize("end", ["first", "last"])
@pytest.mark.parametrize(
    ("labels", "images"),
    [
        (LABELS[:6], EIGHT[:6]),  # too few rows
        (["7"] * 40, EIGHT),  # one class, and corners that are black
        (LABELS, varied(17)),  # as optdigits, with corners that vary
        (LABELS, varied(2)),  # black and white
        (["7"] * 40, varied(2)),
        (["0"] * 38 + ["1"] * 2, varied(2)),  # rare classes
        (LABELS, varied(256)[:, ::-1] // 16),
    ],
)
def test_where_both_ends_may_be_the_label_it_is_an_error_and_the_key_decides(
    tmp_path: Path, end: str, labels: list[Any], images: NDArray[np.uint8]
) -> None:
    columns = columns_of(images)
    columns.insert(0 if end == "first" else 64, labels)
    file = written(tmp_path, None, columns)
    with pytest.raises(
        SourceError, match='label may be the first or the last column .*labels = "first" or labels = "last"'
    ):
        handed_out(source_of(file))
    for key in (end, "0" if end == "first" else "64"):
        assert read_back(file, images, labels=key) == labels


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([2, 3, 10, 17, 100, 256]),
    classes=st.integers(1, 12),
    rows=st.integers(1, 60),
    last=st.booleans(),
    margin=st.booleans(),
)
def test_a_label_is_read_right_or_not_at_all(  # noqa: PLR0913 - what files differ in
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    levels: int,
    classes: int,
    rows: int,
    *,
    last: bool,
    margin: bool,
) -> None:
    chance = np.random.default_rng(seed)
    images = chance.integers(0, levels, (rows, 8, 8)).astype(np.uint8)
    if margin:
        images[:, 0] = images[:, -1] = 0
    labels = chance.integers(0, classes, rows).tolist()
    columns = columns_of(images)
    columns.insert(64 if last else 0, labels)
    file = written(tmp_path_factory.getbasetemp(), None, columns)
    try:
        assert read_back(file, images) == list(map(str, labels))
    except SourceError as error:
        assert 'labels = "last"' in str(error) or "counts from" in str(error)  # noqa: PT017 - the other right end
    assert read_back(file, images, labels="last" if last else "first") == list(map(str, labels))


def test_a_column_that_counts_the_rows_is_no_label(tmp_path: Path) -> None:
    images = np.repeat(EIGHT, 20, axis=0)
    file = written(tmp_path, None, [list(range(800)), *columns_of(images)])
    with pytest.raises(SourceError, match='column 0 holds neither pixels nor labels .*images = "1-64" .*labels = ""'):
        handed_out(source_of(file))
    assert read_back(file, images, images="1-64", labels="") == [None] * 800


def test_positions_name_columns_of_a_file_without_a_header(tmp_path: Path) -> None:
    columns = [range(40), LABELS, *columns_of(EIGHT), ["x"] * 40]
    file = written(tmp_path, None, columns)
    assert read_back(file, images="2-65", labels="1") == LABELS
    assert read_back(file, images="2-65", labels="last") == ["x"] * 40
    assert read_back(file, images="2-65", labels="") == [None] * 40
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "not a CSV of pixels: it has no header, and 67 columns make no image"),
        ({"images": "2-65"}, "it is not clear which column is the label"),
        ({"images": "2-67"}, 'images = "2-67" goes beyond the last column, 66'),
        ({"images": "3-65"}, 'images = "3-65" names 63 columns, which make no image'),
        ({"labels": "67"}, "there is no column '67'"),
        ({"labels": "label"}, "there is no column 'label'"),
    ]
    for options, match in wrong:
        with pytest.raises(SourceError, match=match):
            handed_out(source_of(file, **options))


def test_the_recipe_names_columns_of_a_header(tmp_path: Path) -> None:
    header = ["breed", *PIXELS, *(f"feature{n}" for n in range(64)), "fold"]
    file = written(tmp_path, header, [LABELS, *columns_of(EIGHT), *columns_of(255 - EIGHT), ["2"] * 40])
    assert read_back(file, labels="breed") == LABELS
    assert read_back(file, labels="fold") == read_back(file, labels="last") == ["2"] * 40
    assert read_back(file, labels="") == [None] * 40
    assert read_back(file, 255 - EIGHT, labels="breed", images="feature") == LABELS
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "neither pixels nor a usual name of a label nor .*: breed, feature0, .* and 54 more. Name .*labels = "),
        ({"images": "feature"}, "neither pixels nor a usual name of a label .*: breed, pixel0, .*labels = "),
        ({"labels": "no"}, "there is no column 'no' .* whose columns are breed, pixel0"),
        ({"images": "no", "labels": ""}, 'no column name begins with images = "no"'),
        ({"images": "pixel1", "labels": "breed"}, 'images = "pixel1" names 11 columns, which make no image'),
    ]
    for options, match in wrong:
        with pytest.raises(SourceError, match=match):
            handed_out(source_of(file, **options))


def test_a_header_may_be_longer_than_a_megabyte(tmp_path: Path) -> None:
    header = ",".join(["label", *(f"{'very_' * 60}long_name_{n}" for n in range(64 * 64))])
    (tmp_path / "a.csv").write_text(f"{header}\ncat{',7' * 64 * 64}\n")
    assert (tmp_path / "a.csv").stat().st_size > 2**20
    ((_, label, pixels),) = handed_out(source_of(tmp_path / "a.csv"))
    assert (label, pixels.shape) == ("cat", (64, 64, 1))


def test_positions_name_columns_below_a_header_that_does_not_say_pixels(tmp_path: Path) -> None:
    header = ["kind", *(f"{letter}{other}" for letter in "abcdefgh" for other in "ijklmnop")]
    file = written(tmp_path, header, [LABELS, *columns_of(EIGHT)])
    with pytest.raises(SourceError, match="its header has no numbered columns"):
        handed_out(source_of(file))
    assert read_back(file, images="1-64", labels="kind") == read_back(file, images="1-64", labels="first") == LABELS


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (["label", "label", *PIXELS], "columns label, label may all be the label"),
        (["label", "Class", *PIXELS], "columns label, Class may all be the label"),
        (["y", "digit", *PIXELS], "columns y, digit may all be the label"),
        (["label", "Usage", *PIXELS], "neither pixels nor the label 'label' nor a usual name of an id: Usage"),
        (["number", *PIXELS], "neither pixels nor a usual name of a label nor .*: number. .*labels = "),
        (
            ["label", *PIXELS[:30], *PIXELS[31:]],
            "pixel0 to pixel63 are not numbered without gaps: number 30 is missing",
        ),
        (["label", *PIXELS[:50]], "its 50 columns pixel0 to pixel49 make no image"),
        (["label", *(f"p{n}" for n in range(16))], "its 16 columns p0 to p15 are too few to be taken for pixels"),
        (
            ["label", *(f"p{c}_{r}" for r, c in GRID)],
            "64 columns p0_0 to p7_7 are not the rows and columns of an image",
        ),
        (
            ["label", *(f"p{n}" for n in range(64)), *(f"q{n}" for n in range(64))],
            "several series .* begin with p0, q0",
        ),
    ],
)
def test_a_header_that_is_not_clear_is_an_error_that_says_why(tmp_path: Path, header: list[str], match: str) -> None:
    with pytest.raises(SourceError, match=match) as caught:
        handed_out(source_of(written(tmp_path, header, [[1, 2]] * len(header))))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "lines",
    [
        ("id,width,height", "1,28,28", "2,30,31"),
        ("xmin,ymin,xmax,ymax", "1,28,28,9", "2,30,31,8"),
        ("xmin,ymin,xmax,ymax,class", "1,28,28,9,a", "2,30,31,8,b"),
        ("a,b,c,d", "1,2,3,4"),
        ("V1,V2,V3,V4,Species", "51,35,14,2,setosa"),
        ("0,1,2,3,target", "51,35,14,2,setosa"),
        ("label,a,b,c,d,e,f,g,h,i", "1,2,3,4,5,6,7,8,9,10"),
        ("t;h;p;v", "1;2;3;4"),
        ("id\tx\ty\tw\th", "1\t2\t3\t4\t5"),
        ("1,28,28,9", "2,30,31,8"),
        ("5.1,3.5,1.4,0.2,Iris-setosa", "4.9,3.0,1.4,0.2,Iris-setosa"),
        ("T,2,8,3,5,1,8,13,0,6,6,10,8,0,8,0,8", "I,5,12,3,7,2,10,5,5,4,13,3,9,2,8,4,10"),
        (",".join("1234567890123456"), ",".join("1234567890123456")),
        ("id,label", "1,frog"),
        ("image_id,boxes,labels", "a,3,cat"),
    ],
)
def test_a_table_without_pixels_is_an_error_that_says_what_it_has_and_what_to_do(
    tmp_path: Path, lines: tuple[str, ...]
) -> None:
    (tmp_path / "x").write_text("\n".join(lines))
    columns = ", ".join(lines[0].replace(";", ",").replace("\t", ",").split(",")[:12])
    with pytest.raises(
        SourceError,
        match=f'x is not a CSV of pixels: .* columns: {columns}.*set images = "PREFIX" .*labels = .*format = "list"',
    ) as caught:
        handed_out(source_of(tmp_path / "x"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["0.5", "-3", "1e-05", "300", "x"])
@pytest.mark.parametrize("header", [[f"feature{n}" for n in range(64)], None])
def test_columns_of_which_no_row_holds_pixels_are_an_error(tmp_path: Path, value: str, header: Any) -> None:
    columns: Columns = [[0, 1], *[[value, value]] * 62, [0, 1]]
    with pytest.raises(SourceError, match=f"none of its first 2 rows holds pixels; in row 0, column 1 holds '{value}'"):
        handed_out(source_of(written(tmp_path, header, columns), format="csv"))
    named = written(tmp_path, PIXELS, columns)
    assert [refused.path for refused in turned_away(source_of(named))] == ["0", "1"]


COUNTED = list(map(str, range(64)))


@pytest.mark.parametrize(
    ("lines", "labels", "first"),
    [
        # Headers that number their columns, as pandas writes them.
        ((["", *COUNTED], ["0", *["9"] * 64], ["1", *["8"] * 64]), [None, None], 9),
        ((["label", *COUNTED], ["a", *["9"] * 64], ["b", *["8"] * 64]), ["a", "b"], 9),
        (([*COUNTED, "class"], [*["9"] * 64, "a"], [*["8"] * 64, "b"]), ["a", "b"], 9),
        ((COUNTED, ["9.0"] * 64, ["8.0"] * 64), [None, None], 9),
        (([f'"{n}"' for n in COUNTED], ["9"] * 64), [None], 9),
        (([*sorted(COUNTED), "y"], [*["9"] * 64, "a"]), ["a"], 9),
        # Rows.
        ((COUNTED,), [None], 0),
        ((["cat", *COUNTED],), ["cat"], 0),
        ((["y", *COUNTED], ["x", *["8"] * 64], ["y", *["8"] * 64]), ["y", "x", "y"], 0),
        (([*COUNTED, ""], [*["8"] * 64, ""]), [None, None], 0),
    ],
)
def test_a_first_row_of_numbers_is_a_header_only_where_it_can_be_nothing_else(
    tmp_path: Path, lines: Sequence[list[str]], labels: list[str | None], first: int
) -> None:
    (tmp_path / "a.csv").write_text("".join(",".join(line) + "\n" for line in lines))
    rows = handed_out(source_of(tmp_path / "a.csv", format="csv"))
    assert [label for _, label, _ in rows] == labels
    assert rows[0][2].ravel()[0] == first


@pytest.mark.parametrize("lines", [(COUNTED, ["8"] * 64), (["cat", *COUNTED], ["dog", *["8"] * 64])])
def test_a_first_row_that_may_be_a_header_or_a_picture_is_an_error(tmp_path: Path, lines: Sequence[list[str]]) -> None:
    (tmp_path / "a.csv").write_text("".join(",".join(line) + "\n" for line in lines))
    with pytest.raises(SourceError, match="counts from 0 to 63: it may be a header or an image"):
        handed_out(source_of(tmp_path / "a.csv"))


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("end", ["first", "last"])
def test_a_header_of_numbers_alone_leaves_the_label_to_the_values(tmp_path: Path, start: int, end: str) -> None:
    images = pictures(35, size=(20, 20))
    images[:, 0] = images[:, -1] = 0
    columns = columns_of(images)
    columns.insert(0 if end == "first" else 400, LABELS[:35])
    assert read_back(written(tmp_path, list(map(str, range(start, start + 401))), columns), images) == LABELS[:35]
    assert read_back(written(tmp_path, [f"V{n}" for n in range(start, start + 401)], columns), images) == LABELS[:35]


@pytest.mark.parametrize(
    ("columns", "size", "label", "shape"),
    [
        (7, (2, 3), True, (2, 3, 1)),
        (6, (2, 3), False, (2, 3, 1)),
        (18, (2, 3), False, (2, 3, 3)),
        (19, (2, 3), True, (2, 3, 3)),
        (64, None, False, (8, 8, 1)),
        (192, None, False, (8, 8, 3)),
        # 49 columns are a label and a 4x4 picture in colour where the recipe says so.
        (49, (4, 4), True, (4, 4, 3)),
        (101, (28, 28), True, (10, 10, 1)),
    ],
)
def test_the_shape_without_a_header(
    tmp_path: Path, columns: int, size: tuple[int, int] | None, *, label: bool, shape: tuple[int, int, int]
) -> None:
    row = ["cat" if label else "7", *(str(n % 200) for n in range(columns - 1))]
    (tmp_path / "a.csv").write_text(",".join(row))
    ((_, name, pixels),) = handed_out(
        source_of(tmp_path / "a.csv", format="csv", decode={"size": size} if size else {})
    )
    assert name == ("cat" if label else None)
    assert pixels.shape == shape
    assert pixels.ravel().tolist() == list(map(int, row[label:]))


@pytest.mark.parametrize("columns", [5, 10, 17, 26, 37, 50])
def test_small_pictures_without_a_header_need_a_size(tmp_path: Path, columns: int) -> None:
    (tmp_path / "a.csv").write_text("\n".join([",".join(["cat", *["7"] * (columns - 1)])] * 3))
    with pytest.raises(SourceError, match=f"{columns} columns .*set decode.size"):
        handed_out(source_of(tmp_path / "a.csv"))
    side = round((columns - 1) ** 0.5)
    assert len(handed_out(source_of(tmp_path / "a.csv", decode={"size": [side, side]}))) == 3

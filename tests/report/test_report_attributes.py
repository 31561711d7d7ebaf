"""The report lists attributes, what does not fit, and duplicates between the values of one."""

from pathlib import Path

import pytest
from making import as_folder, files_of, recipe

from pipeline.builder.attribute_notes import describe_attributes
from pipeline.builder.build import build
from pipeline.builder.publish import write_report
from pipeline.engines.local import LocalEngine
from pipeline.lake_handle import Lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    files = {f"p{number % 5}_{name[2:]}": data for number, (name, data) in enumerate(files_of(20).items())}
    as_folder(tmp_path / "a", {**files, "p4_copy.png": files["p0_00000.png"]})
    (tmp_path / "ages.csv").write_text("path,<b>age,secret\np0_00000.png,61,x\n<script>gone,1,y\n")
    split = {"name": "main", "groups": ["attr:patient"], "train": {"from": "train", "share": 0.5}}
    made = recipe(
        tmp_path,
        {"uri": "a"},
        attributes=[{"patterns": {"patient": r"(p\d)_"}}, {"uri": "ages.csv"}],
        split=[{**split, "test": {"from": "train", "share": 0.5}}],
    )
    return Lake(build(made, engine=LocalEngine(1)).root)


def test_attributes_and_what_does_not_fit_are_in_the_report(lake: Lake) -> None:
    (described,) = describe_attributes(lake.snapshot)
    assert (described["dataset"], described["images"]) == ("d", 21)
    rows = [(one["name"], one["type"], one["images"], one["values"]) for one in described["attributes"]]
    assert rows == [("<b>age", "int", 1, 1), ("patient", "text", 21, 5), ("secret", "text", 1, 1)]
    page = Path(write_report(lake)).read_text(encoding="utf-8")
    assert 'id="attributes"' in page
    assert "&lt;b&gt;age" in page
    assert "1 of 2 rows name no image by their path: &lt;script&gt;gone" in page
    assert "attribute patient: 1 cluster of exact (2 images) with several values" in page
    assert "<script" not in page

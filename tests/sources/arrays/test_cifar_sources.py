"""CIFAR's binary version: files of records and folders of them; the pickled version is never opened."""

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import handed_out, recipe, source_of
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.sources import detect, read, resolve, survey

TEN = [f"name{n}" for n in range(10)]
HUNDRED = [f"fine{n}" for n in range(100)]


def colour(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def records(pixels: NDArray[np.uint8], *labels: Any) -> bytes:
    """Make records: the label bytes of each, coarse first, and its pixels by channel."""
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    columns = [np.asarray(label, np.uint8)[:, None] for label in labels]
    return np.concatenate([*columns, planes], axis=1).tobytes()


def ten(folder: Path, *, names: bool = True) -> Path:
    """Write a CIFAR-10 of two training files and one test file, two pictures each."""
    folder.mkdir()
    for number, name in enumerate(["data_batch_2.bin", "data_batch_10.bin", "test_batch.bin"]):
        (folder / name).write_bytes(records(colour(2, number), [number, 9]))
    if names:
        (folder / "batches.meta.txt").write_text("\n".join(TEN) + "\n\n")
    (folder / "readme.html").write_text("CIFAR")
    return folder


def hundred(folder: Path, *, names: bool = True) -> Path:
    folder.mkdir()
    for number, split in enumerate(["train", "test"]):
        (folder / f"{split}.bin").write_bytes(records(colour(2, number), [3, 4], [98 + number, 1]))
    if names:
        (folder / "fine_label_names.txt").write_text("\r\n".join(HUNDRED) + "\r\n")
    return folder


def fault(path: Path, **part: Any) -> str:
    with pytest.raises(SourceError) as caught:
        handed_out(source_of(path, **part))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_folder_is_read_by_split(tmp_path: Path) -> None:
    folder = ten(tmp_path / "cifar-10-batches-bin")
    assert detect(folder) == "cifar"
    found = handed_out(source_of(folder))
    assert [row[:2] for row in found] == [
        ("data_batch_2.bin/0", "name0"),
        ("data_batch_2.bin/1", "name9"),
        ("data_batch_10.bin/0", "name1"),
        ("data_batch_10.bin/1", "name9"),
    ]
    assert np.array_equal([array for *_, array in found], np.concatenate([colour(2, 0), colour(2, 1)]))
    (first, _) = handed_out(source_of(folder, split="test"))
    assert first[:2] == ("test_batch.bin/0", "name2")
    assert np.array_equal(first[2], colour(2, 2)[0])


def test_the_fine_label_of_cifar_100_is_taken(tmp_path: Path) -> None:
    folder = hundred(tmp_path / "cifar-100-binary")
    assert detect(folder) == detect(folder / "test.bin") == "cifar"
    assert [row[:2] for row in handed_out(source_of(folder))] == [("train.bin/0", "fine98"), ("train.bin/1", "fine1")]
    found = handed_out(source_of(folder / "test.bin", split="any"))
    assert [row[:2] for row in found] == [("0", "fine99"), ("1", "fine1")]
    assert np.array_equal([array for *_, array in found], colour(2, 1))


def test_a_file_may_be_named_by_itself_and_labels_be_numbers(tmp_path: Path) -> None:
    folder = ten(tmp_path / "set", names=False)
    file = folder / "data_batch_2.bin"
    assert detect(file) == "cifar"
    found = handed_out(source_of(file))
    assert [row[:2] for row in found] == [("0", "0"), ("1", "9")]
    assert np.array_equal([array for *_, array in found], colour(2, 0))
    # Under another name, the size tells which CIFAR it is.
    file.rename(folder / "other")
    assert handed_out(source_of(folder / "other", format="cifar"))[1][1] == "9"
    (folder / "other").write_bytes(records(colour(2), [3, 4], [98, 99]))
    assert [label for _, label, _ in handed_out(source_of(folder / "other", format="cifar"))] == ["98", "99"]


def test_what_begins_like_another_form_is_told_by_name(tmp_path: Path) -> None:
    pixels = colour(1)
    pixels[0, 0, :3, 0] = (0, 8, 3)  # an IDX file's first bytes, with the label in front
    (tmp_path / "test_batch.bin").write_bytes(records(pixels, [0]))
    assert detect(tmp_path / "test_batch.bin") == "cifar"
    assert np.array_equal(handed_out(source_of(tmp_path / "test_batch.bin"))[0][2], pixels[0])
    # A train.bin without label names may be anything.
    folder = hundred(tmp_path / "set", names=False)
    assert detect(folder) == "folder"


@given(count=st.integers(1, 5), per_shard=st.integers(1, 6), fine=st.booleans(), seed=st.integers(0, 99))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, count: int, per_shard: int, *, fine: bool, seed: int
) -> None:
    pixels, labels = colour(count, seed), np.arange(count) + 5
    file = tmp_path_factory.getbasetemp() / "any.bin"
    file.write_bytes(records(pixels, labels // 5, labels) if fine else records(pixels, labels))
    source = source_of(file, format="cifar")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.sources.arrays.cifar.IMAGES_PER_SHARD", per_shard)
        found = handed_out(source)
        shards = list(read(source))
        assert [shard.paths for shard in read(source, {shards[-1].shard})] == [shards[-1].paths]
    assert len(shards) == -(-count // per_shard)
    assert [row[:2] for row in found] == [(str(n), str(n + 5)) for n in range(count)]
    assert np.array_equal([array for *_, array in found], pixels)


def test_the_fingerprint_is_of_records_and_names(tmp_path: Path) -> None:
    folder = ten(tmp_path / "set")
    source = source_of(folder)
    seen = {survey(source).fingerprint, survey(source_of(folder, split="test")).fingerprint}
    (folder / "batches.meta.txt").write_text("\n".join(TEN) + "x\n")
    seen.add(survey(source).fingerprint)
    (folder / "batches.meta.txt").unlink()
    seen.add(survey(source).fingerprint)
    (folder / "data_batch_3.bin").write_bytes(records(colour(1), [1]))
    seen.add(survey(source).fingerprint)
    assert len(seen) == 5


def test_the_python_version_is_never_opened(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps({b"data": 1}))
    for path in (folder, folder / "data_batch_1"):
        assert detect(path) == "cifar"
        assert "is the Python version of CIFAR, a pickle, which is never opened. Fetch the binary version" in fault(
            path
        )
        with pytest.raises(SourceError, match="Python version"):
            survey(source_of(path))


@pytest.mark.parametrize(
    "name", ["cifar-10-batches-bin", "cifar-10-batches-py", "cifar-100-binary", "cifar-100-python"]
)
def test_the_published_archive_is_to_be_unpacked(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo(f"{name}/x")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    assert "is an archive. Unpack the binary version of CIFAR and name its folder" in fault(tmp_path / "a.tar.gz")


def test_a_folder_needs_a_split_that_it_has(tmp_path: Path) -> None:
    folder = ten(tmp_path / "set")
    assert "has no records for split 'valid'. A folder of CIFAR has train and test; name a file" in fault(
        folder, split="valid"
    )
    assert [source.split for source in resolve(recipe(tmp_path, {"uri": "set", "split": None}))] == ["train", "test"]
    (folder / "test_batch.bin").unlink()
    assert [source.split for source in resolve(recipe(tmp_path, {"uri": "set", "split": None}))] == ["train"]
    assert "has no records for split 'test'" in fault(folder, split="test")
    (tmp_path / "none").mkdir()
    assert "holds no CIFAR records. Name a file of records instead" in fault(tmp_path / "none", format="cifar")
    for file in hundred(tmp_path / "other").iterdir():
        file.rename(folder / file.name)
    assert "holds both CIFAR-10 and CIFAR-100" in fault(folder)


def test_what_is_no_whole_records_is_an_error(tmp_path: Path) -> None:
    folder = ten(tmp_path / "set")
    (folder / "data_batch_2.bin").write_bytes(bytes(3072))
    with pytest.raises(
        SourceError, match="data_batch_2.bin is cut short: 3072 bytes are not a whole number of records"
    ):
        handed_out(source_of(folder))
    for data in (b"", bytes(3072), bytes(3073 * 3074)):
        (tmp_path / "x").write_bytes(data)
        assert "cannot be cut into CIFAR records of 3073 bytes (CIFAR-10) or 3074 bytes" in fault(
            tmp_path / "x", format="cifar"
        )
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(3074))
    assert "cannot be cut into CIFAR records" in fault(tmp_path / "data_batch_1.bin", format="cifar")


def test_labels_and_their_names_must_fit(tmp_path: Path) -> None:
    folder = ten(tmp_path / "set")
    file = folder / "test_batch.bin"
    file.write_bytes(records(colour(1), [10]))
    assert "has label 10, but its folder has only 10 names of labels. One of the two files is damaged" in fault(file)
    (folder / "batches.meta.txt").write_bytes(b"\xff\n")
    with pytest.raises(SourceError, match="batches.meta.txt is not UTF-8 text"):
        handed_out(source_of(file))


def test_names_of_labels_are_read_as_windows_writes_them_and_none_may_be_empty(tmp_path: Path) -> None:
    folder = ten(tmp_path / "set")
    file = folder / "test_batch.bin"
    file.write_bytes(records(colour(3), [0, 1, 2]))
    (folder / "batches.meta.txt").write_bytes("\ufeffair plane\r\nauto\r\nbird\r\n\r\n".encode())
    assert [label for _, label, _ in handed_out(source_of(file))] == ["air plane", "auto", "bird"]
    for text, line in (("a\n\nc\n", 2), ("\r\nb\r\nc", 1)):
        (folder / "batches.meta.txt").write_text(text)
        with pytest.raises(SourceError, match=f"line {line} of .*batches.meta.txt is blank, so its class has no name"):
            handed_out(source_of(file))


def test_a_file_that_goes_or_shrinks_after_it_was_found_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ten(tmp_path / "set")
    source = source_of(folder / "test_batch.bin")
    monkeypatch.setattr("pipeline.sources.arrays.cifar.IMAGES_PER_SHARD", 1)
    shards = read(source)
    next(shards)
    source.path.write_bytes(bytes(3073 + 10))
    with pytest.raises(SourceError, match="test_batch.bin cannot be read .*Fetch it again"):
        list(shards)
    source.path.unlink()
    with pytest.raises(SourceError, match=r"cannot read .*test_batch.bin \(.*No such file"):
        survey(source)

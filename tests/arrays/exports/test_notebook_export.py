import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest
from exported import export_main

from pipeline.arrays.exports.notebook import _integer
from pipeline.errors import LakeError
from pipeline.lake_handle import Lake


def test_the_arrays_of_the_notebooks(small_lake: Lake, tmp_path: Path) -> None:
    export_main(small_lake, tmp_path / "out", "notebook")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["export.json", "notMNIST.npz"]
    with np.load(tmp_path / "out" / "notMNIST.npz") as arrays:
        assert set(arrays) == {"train_dataset", "train_labels", "test_dataset", "test_labels", "classes"}
        assert arrays["classes"].tolist() == ["A", "B"]
        for role in ("train", "test"):
            pixels, labels = small_lake.arrays("main", role, normalised=True)
            np.testing.assert_array_equal(arrays[f"{role}_dataset"], pixels)
            np.testing.assert_array_equal(arrays[f"{role}_labels"], labels)
            assert (arrays[f"{role}_dataset"].dtype, arrays[f"{role}_labels"].dtype) == (np.float32, np.int32)


def test_a_pickle_only_when_asked_for(small_lake: Lake, rgb_lake: Lake, tmp_path: Path) -> None:
    for lake, roles in ((small_lake, ("train", "test")), (rgb_lake, ("train", "valid"))):
        out = tmp_path / str(id(lake))
        export_main(lake, out, "notebook", pickle=True)
        with (out / "notMNIST.pickle").open("rb") as file:
            save = pickle.load(file)  # noqa: S301 - written a moment ago, by the test
        assert list(save) == [f"{role}_{what}" for role in roles for what in ("dataset", "labels")]
        with np.load(out / "notMNIST.npz") as arrays:
            for name, array in save.items():
                np.testing.assert_array_equal(array, arrays[name])
                assert array.dtype == arrays[name].dtype
                assert array.flags.writeable
        names = {
            str(arg) for op, arg, _ in pickletools.genops((out / "notMNIST.pickle").read_bytes()) if op.name == "GLOBAL"
        }
        assert names == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}


@pytest.mark.parametrize("number", [0, 1, 127, 128, 255, 256, 2**31, 2**40])
def test_integers_of_a_pickle(number: int) -> None:
    assert pickle.loads(b"\x80\x04" + _integer(number) + b".") == number  # noqa: S301 - made here


def test_a_pickle_goes_with_the_notebook_only(small_lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="with form notebook only"):
        export_main(small_lake, tmp_path / "out", "npz", pickle=True)

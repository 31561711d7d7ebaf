"""notebook: the six arrays of the notMNIST notebooks of Udacity's course, as they are after its first assignment."""

from pathlib import Path

import numpy as np

from pipeline.arrays.exports.arrays import (
    check_shapes,
    class_array,
    pixels_shape,
    write_array,
    write_header,
    write_pixels,
)
from pipeline.arrays.exports.npz import member, npz_file
from pipeline.arrays.exports.pickled import write_pickle
from pipeline.arrays.exports.selection import Selection, Work
from pipeline.scaling import normalise


def write(folder: Path, selection: Selection, work: Work, *, pickle: bool = False) -> None:
    """Write notMNIST.npz: ROLE_dataset and ROLE_labels for train, valid and test, and `classes`.

    Roles that the split lacks are left out. Datasets are (n, height, width) float32, (p - 127.5) / 255; labels (n,)
    int32, -1 for none; classes text: row i names label i.

    Args:
        folder: where to.
        selection: what.
        work: told of progress.
        pickle: write notMNIST.pickle too: the same arrays without `classes` in a dict, as the notebooks' own file.

    Raises:
        LakeError: the images of a role have several shapes.
    """
    check_shapes(selection.roles)
    with npz_file(folder / "notMNIST.npz") as archive:
        for role in selection.roles:
            with member(archive, f"{role.name}_dataset") as stream:
                write_header(stream, pixels_shape(role), np.float32)
                write_pixels(stream, role, work.advance, normalise)
            with member(archive, f"{role.name}_labels") as stream:
                write_array(stream, role.labels.astype(np.int32))
        with member(archive, "classes") as stream:
            write_array(stream, class_array(selection))
    if pickle:
        with (folder / "notMNIST.pickle").open("wb") as stream:
            write_pickle(stream, selection.roles)

"""What tests share: the engines, and two small lakes that are built once."""

import pytest
from hypothesis import HealthCheck, settings
from making import DATA, as_folder, files_of, recipe

from pipeline.engines import Engine
from pipeline.engines.local import LocalEngine
from pipeline.flow.build import build
from pipeline.handle import Lake

# Machines are shared and slow: how long an example takes says nothing.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


@pytest.fixture(params=["one process", "two processes"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Every way to run: what they make must be the same."""
    return LocalEngine(1 if request.param == "one process" else 2)


@pytest.fixture(scope="session")
def small_lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake of 120 train and 40 test images in two classes; ten test images are copies of train images. Read only."""
    base = tmp_path_factory.mktemp("small")
    train = files_of(120)
    test = {**files_of(30, seed=1), **{f"A/copy{i}.png": train[f"A/{2 * i:05d}.png"] for i in range(10)}}
    as_folder(base / "train", {**train, "B/empty.png": b"", "A/note.txt": b"no image"})
    as_folder(base / "test", test)
    build(
        recipe(
            base,
            {"uri": "train"},
            {"uri": "test", "split": "test"},
            decode={"size": [28, 28]},
            dedup={"rules": ["exact", "sign", "maxpool:4"]},
            split=[
                {"name": "main", "seed": 3, "sanitize": "exact", "train": {"from": "train"}, "test": {"from": "test"}}
            ],
            baseline=[{"model": "logistic", "split": "main", "train_sizes": [20, "all"]}],
        ),
        engine=LocalEngine(1),
    )
    return Lake(base / "lake")


@pytest.fixture(scope="session")
def notmnist_lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The real data of shared/data, small as test and the large sample as train. Read only."""
    if not DATA.exists():
        pytest.skip("the real data (../shared/data) is not here")
    base = tmp_path_factory.mktemp("notmnist")
    small, large = str(DATA / "notMNIST_small.tar.gz"), str(DATA / "notMNIST_large_sample.tar.gz")
    build(
        recipe(
            base,
            {"uri": large, "dataset": "notmnist", "classes": 10, "min_per_class": 340},
            {"uri": small, "dataset": "notmnist", "split": "test", "classes": 10, "min_per_class": 1872},
            decode={"size": [28, 28]},
            dedup={"rules": ["exact", "sign", "maxpool:2", "maxpool:4"]},
            split=[{"name": "main", "sanitize": "sign", "train": {"from": "train"}, "test": {"from": "test"}}],
        )
    )
    return Lake(base / "lake")

"""What tests share: the engines, and two small lakes that are built once."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from commands import Run, run_command
from damaged_lakes import Case, copy_of, make_lake
from examples import THOROUGH
from feeding import Pictures, write_pictures
from hypothesis import HealthCheck, settings
from lake_bucket import MISSING, bucket_variables, conditional_server, make_bucket
from making import DATA, as_folder, encoded, files_of, recipe
from pyarrow.fs import S3FileSystem
from reviewing import App, build_review_lake, open_app
from s3 import KEY, SECRET, Bucket, serving

from pipeline.builder.build import build
from pipeline.builder.publish import ReportResult, try_to_write_report
from pipeline.engines import Engine
from pipeline.engines.local import LocalEngine
from pipeline.engines.ray import RayEngine
from pipeline.lake_handle import Lake

# Machines are shared and slow: how long an example takes says nothing. `make stress` tries more examples.
settings.register_profile("quick", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=15)
settings.register_profile(THOROUGH, parent=settings.get_profile("quick"), max_examples=100)
settings.load_profile("quick")

# Fixtures that start a server or a cluster: their tests have a step of their own in CI.
SERVERS = {"ray": {"ray_here"}, "bucket": {"s3_endpoint", "lake_endpoint"}}

ODD_LABELS = ("A", "a", "CON", "ä b%", "_unlabelled", "..x", "x" * 120)


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the servers that they need, `ray` or `bucket`; one process runs all tests of the Ray cluster.

    Of a test with `quick_cases(N)`, all cases but the first N are marked as slow.
    """
    cases: Counter[str] = Counter()
    for item in items:
        if (quick := item.get_closest_marker("quick_cases")) is not None:
            test = item.nodeid.partition("[")[0]
            cases[test] += 1
            if cases[test] > quick.args[0]:
                item.add_marker("slow")
        fixtures = set(getattr(item, "fixturenames", ()))
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        for marker, servers in SERVERS.items():
            if fixtures & servers or (marker == "ray" and parameters.get("engine") == "ray"):
                item.add_marker(marker)
                if marker == "ray":
                    item.add_marker(pytest.mark.xdist_group("ray"))


@pytest.fixture(scope="session")
def ray_here() -> Iterator[Engine]:
    """Ray on two cores of this machine, started once."""
    if find_spec("ray") is None:
        pytest.skip("ray (extra `ray`) is not installed")
    engine = RayEngine(2)
    assert list(engine.map(abs, [-1])) == [1]
    yield engine
    import_module("ray").shutdown()


@pytest.fixture(params=["one process", "two processes", "ray"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Every way to run: what they make must be the same."""
    if request.param == "ray":
        ray: Engine = request.getfixturevalue("ray_here")
        return ray
    return LocalEngine(1 if request.param == "one process" else 2)


@pytest.fixture(scope="session", autouse=True)
def no_reports() -> Iterator[None]:
    """Builds write no report, which takes twice as long as the rest of a small build; see `reports`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "pipeline.builder.build.try_to_write_report", lambda lake: ReportResult(f"{lake.root}/report.html")
        )
        yield


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds of this test write their report."""
    monkeypatch.setattr("pipeline.builder.build.try_to_write_report", try_to_write_report)


@pytest.fixture
def run() -> Run:
    """The command line."""
    return run_command


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
def whole_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A lake of three sources in which every table has rows. Read only."""
    return make_lake(tmp_path_factory.mktemp("damaged") / "base")


@pytest.fixture
def case(whole_case: Case, tmp_path: Path) -> Case:
    """A copy of the lake and its sources, for a test to damage."""
    return copy_of(whole_case, tmp_path / "base")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """400 pictures in 4 files and 14 row groups of 1 to 90. Read only."""
    groups = [[40, 3, 25], [90], [1, 1, 30, 20, 50], [17, 13, 60, 10, 40]]
    return write_pictures(tmp_path_factory.mktemp("pictures"), groups)


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


@pytest.fixture(scope="session")
def rgb_lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """24 train and 8 valid images in colour, 6x5, in two classes. Read only."""
    base = tmp_path_factory.mktemp("rgb")
    made = np.random.default_rng(0).integers(0, 256, (32, 6, 5, 3), dtype=np.uint8)
    as_folder(base / "in", {f"{'AB'[i % 2]}/{i:02d}.png": encoded(made[i]) for i in range(32)})
    part = {"name": "main", "train": {"from": "train", "size": 24}, "valid": {"from": "train", "size": 8}}
    build(recipe(base, {"uri": "in"}, decode={"mode": "RGB"}, split=[part]), engine=LocalEngine(1))
    return Lake(base / "lake")


@pytest.fixture(scope="session")
def mixed_lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """42 train images of seven shapes under seven odd labels, three more without a label. Read only."""
    base = tmp_path_factory.mktemp("mixed")
    chance = np.random.default_rng(1)
    made = [chance.integers(0, 256, (3 + i % 7, 4 + i % 5), dtype=np.uint8) for i in range(45)]
    folders = [f"{ODD_LABELS[i % 7]}/" if i < 42 else "" for i in range(45)]
    as_folder(base / "in", {f"{folder}{i:02d}.png": encoded(made[i]) for i, folder in enumerate(folders)})
    part = {"name": "main", "train": {"from": "train"}}
    build(recipe(base, {"uri": "in"}, split=[part]), engine=LocalEngine(1))
    return Lake(base / "lake")


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that wants credentials."""
    with serving(tmp_path_factory.mktemp("s3"), "--auth-key", f"{KEY},{SECRET}") as address:
        yield address


@pytest.fixture
def s3_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials but those that a test gives, and a cache of its own."""
    for name in ("PROFILE", "REGION", "DEFAULT_REGION", "SESSION_TOKEN", "ENDPOINT_URL_S3", "SKIP_SIGNATURE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    told = {"ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET, "EC2_METADATA_DISABLED": "true"}
    for name, value in told.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    for name in ("CONFIG_FILE", "SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(f"AWS_{name}", str(tmp_path / "none"))
    monkeypatch.setenv("IMAGELAKE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bucket(
    s3_endpoint: str,
    s3_variables: None,  # noqa: ARG001 - comes first: it clears what others set
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Bucket:
    """A bucket of the test's own, with credentials for it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    # Only to fill the bucket: rclone does not know uploads with a checksum behind them.
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    files = S3FileSystem(
        access_key=KEY,
        secret_key=SECRET,
        endpoint_override=s3_endpoint,
        region="us-east-1",
        allow_bucket_creation=True,
        allow_delayed_open=True,
    )
    name = f"b{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"
    files.create_dir(name)
    return Bucket(s3_endpoint, name, files)


@pytest.fixture(scope="session")
def lake_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that honours conditional writes, as lakes need."""
    if MISSING:
        pytest.skip(MISSING)
    with conditional_server(tmp_path_factory.mktemp("conditional")) as address:
        yield address


@pytest.fixture
def lake_bucket(
    lake_endpoint: str,
    s3_variables: None,  # noqa: ARG001 - comes first: it clears what others set
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Bucket:
    """A bucket of the test's own for lakes; the environment says where it is and with which keys."""
    for name, value in bucket_variables(lake_endpoint).items():
        monkeypatch.setenv(name, value)
    return make_bucket(lake_endpoint, f"l{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}")


@pytest.fixture(scope="session")
def review_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the lake of `build_review_lake`. Read only."""
    base = tmp_path_factory.mktemp("review")
    build_review_lake(base)
    return base


@pytest.fixture
def review_lake(review_base: Path, tmp_path: Path) -> Lake:
    """A copy of that lake, for a test to write verdicts to."""
    return Lake(shutil.copytree(review_base / "lake", tmp_path / "lake"))


@pytest.fixture
def start() -> Iterator[Callable[..., App]]:
    """Start the review app on a lake, for a person; it is stopped in the end."""
    started: list[App] = []

    def begin(lake: Lake, who: str = "anna") -> App:
        started.append(open_app(lake, who))
        return started[-1]

    yield begin
    for one in started:
        one.client.close()


@pytest.fixture
def app(review_lake: Lake, start: Callable[..., App]) -> App:
    """The review app on a copy of the lake."""
    return start(review_lake)

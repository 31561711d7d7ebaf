"""Build the wheel, install it without the lock into a new environment, and build lakes with it from an empty folder.

Run by `make wheel`. Each form that people have is one command, and must end in a lake with the right counts.
"""  # noqa: INP001 - a script

import io
import json
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PROJECT = Path(__file__).resolve().parents[1]
TRAIN, TEST = 40, 20


def main() -> int:
    """Try the wheel; the exit code."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        call(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", base / "dist", PROJECT)
        (wheel,) = (base / "dist").glob("*.whl")
        venv.create(base / "env", with_pip=True)
        check_files(wheel)
        python = base / "env" / "bin" / "python"
        call(python, "-m", "pip", "install", wheel)
        command = base / "env" / "bin" / "imagelake"
        work = base / "work"
        work.mkdir()
        try_import(python, work)
        for form, make in FORMS.items():
            folder = work / form
            folder.mkdir()
            try_form(command, folder, form, make)
    say(f"{len(FORMS)} forms built by {wheel.name} in a new environment")
    return 0


def check_files(wheel: Path) -> None:
    """Check that the wheel has the licence and the markers of typed packages."""
    names = zipfile.ZipFile(wheel).namelist()
    wanted = ["imagelake/py.typed", "pipeline/py.typed", "schemas/py.typed", "imagelake/__init__.py"]
    missing = [name for name in wanted if name not in names]
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        missing.append("LICENSE")
    if missing:
        raise SystemExit(f"{wheel.name} lacks {', '.join(missing)}")


def try_import(python: Path, work: Path) -> None:
    """Import the public API in a folder that has a pipeline.py and a schemas.py of its own."""
    folder = work / "own-modules"
    folder.mkdir()
    for name in ("pipeline", "schemas"):
        (folder / f"{name}.py").write_text("raise RuntimeError('the wrong module')\n", encoding="utf-8")
    names = "import imagelake; print([getattr(imagelake, name).__name__ for name in imagelake.__all__])"
    say(f"{'import':>12}  imagelake: {call(python, '-c', names, cwd=folder).strip()}")


def try_form(command: Path, folder: Path, form: str, make: Callable[[Path], tuple[list[str], dict[str, int]]]) -> None:
    """Build one form, and compare the images of every split and their labels with what was made."""
    paths, expected = make(folder)
    call(command, "build", *paths, "--into", "lake", cwd=folder)
    query = "select split, count(*) as images, count(label) as labelled from images group by all"
    rows = json.loads(call(command, "sql", "lake", query, "--json", cwd=folder))
    found = {row["split"]: row["images"] for row in rows}
    if found != expected or any(row["images"] != row["labelled"] for row in rows):
        raise SystemExit(f"{form}: {rows} where {expected} was expected")
    again = call(command, "build", "lake", cwd=folder)
    if "nothing to do" not in again:
        raise SystemExit(f"{form}: a second build did something:\n{again}")
    say(f"{form:>12}  {' '.join(paths)}: {found}")


def pictures(count: int, seed: int) -> list[tuple[str, bytes]]:
    """Make class and PNG of so many different pictures."""
    made = np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    return [("cat" if number % 2 else "dog", encode(array)) for number, array in enumerate(made)]


def encode(array: np.ndarray) -> bytes:  # type: ignore[type-arg] # a script
    """Encode a picture as PNG."""
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    return out.getvalue()


def class_folders(folder: Path) -> tuple[list[str], dict[str, int]]:
    """One folder a class."""
    write(folder / "pets", pictures(TRAIN, 0))
    return ["pets"], {"train": TRAIN}


def role_folders(folder: Path) -> tuple[list[str], dict[str, int]]:
    """Folders train and test, and in them one a class."""
    write(folder / "pets" / "train", pictures(TRAIN, 0))
    write(folder / "pets" / "test", pictures(TEST, 1))
    return ["pets"], {"train": TRAIN, "test": TEST}


def packed(folder: Path) -> tuple[list[str], dict[str, int]]:
    """The same as a tar.gz."""
    role_folders(folder)
    with tarfile.open(folder / "pets.tar.gz", "w:gz") as archive:
        archive.add(folder / "pets", "pets")
    return ["pets.tar.gz"], {"train": TRAIN, "test": TEST}


def hugging_face(folder: Path) -> tuple[list[str], dict[str, int]]:
    """Parquet files as the Hub has them."""
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    for split, count in (("train", TRAIN), ("test", TEST)):
        rows = pictures(count, count)
        image = pa.array(
            [{"bytes": data, "path": None} for _, data in rows], pa.struct({"bytes": pa.binary(), "path": pa.string()})
        )
        label = pa.array([int(name == "dog") for name, _ in rows], pa.int64())
        table = pa.table({"image": image, "label": label})
        notes = {"huggingface": json.dumps({"info": {"features": features}})}
        (folder / "hub" / "data").mkdir(parents=True, exist_ok=True)
        pq.write_table(
            table.replace_schema_metadata(notes), folder / "hub" / "data" / f"{split}-00000-of-00001.parquet"
        )
    return ["hub"], {"train": TRAIN, "test": TEST}


def webdataset(folder: Path) -> tuple[list[str], dict[str, int]]:
    """Tars of samples."""
    (folder / "shards").mkdir()
    for split, count in (("train", TRAIN), ("test", TEST)):
        with tarfile.open(folder / "shards" / f"{split}-000000.tar", "w") as archive:
            for number, (name, data) in enumerate(pictures(count, count)):
                for ending, content in (("png", data), ("cls", str(int(name == "dog")).encode())):
                    info = tarfile.TarInfo(f"{number:06d}.{ending}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    return ["shards"], {"train": TRAIN, "test": TEST}


def arrays(folder: Path) -> tuple[list[str], dict[str, int]]:
    """An npz such as Keras has for MNIST."""
    rng = np.random.default_rng(0)
    x_train, x_test = (rng.integers(0, 256, (count, 28, 28), dtype=np.uint8) for count in (TRAIN, TEST))
    np.savez(
        folder / "digits.npz",
        x_train=x_train,
        y_train=np.arange(TRAIN) % 10,
        x_test=x_test,
        y_test=np.arange(TEST) % 10,
    )
    return ["digits.npz"], {"train": TRAIN, "test": TEST}


def idx(folder: Path) -> tuple[list[str], dict[str, int]]:
    """MNIST's four files."""
    rng = np.random.default_rng(0)
    (folder / "mnist").mkdir()
    for role, count in (("train", TRAIN), ("t10k", TEST)):
        sides = b"".join(side.to_bytes(4, "big") for side in (count, 28, 28))
        data = rng.integers(0, 256, count * 784, dtype=np.uint8).tobytes()
        (folder / "mnist" / f"{role}-images-idx3-ubyte").write_bytes(b"\0\0\x08\3" + sides + data)
        labels = bytes(number % 10 for number in range(count))
        (folder / "mnist" / f"{role}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\1" + count.to_bytes(4, "big") + labels)
    return ["mnist"], {"train": TRAIN, "test": TEST}


def write(folder: Path, rows: list[tuple[str, bytes]]) -> None:
    """Write pictures to class folders."""
    for number, (name, data) in enumerate(rows):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{number:04d}.png").write_bytes(data)


def call(*words: object, cwd: Path | None = None) -> str:
    """Run a command; its output."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, cwd=cwd)  # noqa: S603 - our own
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")


FORMS = {
    "folder": class_folders,
    "roles": role_folders,
    "tar.gz": packed,
    "parquet": hugging_face,
    "webdataset": webdataset,
    "npz": arrays,
    "idx": idx,
}

if __name__ == "__main__":
    sys.exit(main())

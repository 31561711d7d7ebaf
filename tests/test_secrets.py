"""Secrets in addresses of sources are used for the download, and are nowhere else: in no file of the lake or the
cache, in no output, and in no message."""

import base64
import pickle
import tarfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from urllib.parse import quote

import polars as pl
import pyarrow.parquet as pq
import pytest
from commands import run_command
from downloads import Server
from lakes import file_names, writing
from making import DATA, as_zip, files_of

import schemas
from pipeline.addresses import redacted_text
from pipeline.builder.commit_ingest import commit_shards_table
from pipeline.builder.state import stored_shards
from pipeline.errors import LakeError, RecipeError, SourceError, StorageError
from pipeline.export import export
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.recipe import Recipe, read_recipe
from pipeline.sources import resolve
from pipeline.verify import verify

PASSWORD, SIGNATURE = "pass/w rd", "sig+X/42=="
SECRETS = [PASSWORD, SIGNATURE, "letmein", *(quote(word, safe="") for word in (PASSWORD, SIGNATURE))]
SECRETS += [base64.b64encode(text.encode()).decode().rstrip("=") for text in (f"anna:{PASSWORD}", PASSWORD, SIGNATURE)]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("IMAGELAKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pipeline.sources.remote._RETRY_DELAYS", ())
    with Server() as running:
        Thread(target=running.serve_forever, daemon=True).start()
        running.files["/set.zip"] = as_zip(tmp_path / "set.zip", files_of(12)).read_bytes()
        yield running
        running.shutdown()


def secret_address(server: Server) -> str:
    host = server.at("/set.zip").removeprefix("http://")
    return f"http://anna:{quote(PASSWORD, safe='')}@{host}?X-Sig={quote(SIGNATURE, safe='')}&token=letmein#letmein"


def write_recipe(tmp_path: Path, address: str) -> Path:
    file = tmp_path / "in.toml"
    file.write_text(f'[lake]\nroot = "lake"\n[[source]]\nuri = "{address}"\ndataset = "set"\n')
    return file


def found_in(*folders: Path) -> list[str]:
    """The files whose name or content has a secret; strings of Parquet files are decompressed."""
    found = []
    for file in (file for folder in folders for file in folder.rglob("*") if file.is_file()):
        texts = [str(file), file.read_bytes().decode("latin-1")]
        if file.suffix == ".parquet":
            texts.append(repr(pq.read_table(file).drop_columns(_binary(file)).to_pylist()))
        found += [f"{file}: {secret}" for secret in SECRETS for text in texts if secret in text]
    return found


def _binary(file: Path) -> list[str]:
    return [field.name for field in pq.read_schema(file) if "binary" in str(field.type)]


def assert_clean(text: str) -> None:
    assert not [secret for secret in SECRETS if secret in text], text


def test_no_command_stores_or_prints_a_secret(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, lake = write_recipe(tmp_path, secret_address(server)), tmp_path / "lake"
    first = run_command("build", recipe, "--workers", 1)
    assert first.exit_code == 0, first.output
    assert "letmein" in server.asked[0]
    done = [first, run_command("build", recipe, "--json"), run_command("status", lake), run_command("history", lake)]
    done += [run_command("verify", lake), run_command("report", lake), run_command("sql", lake, "SELECT * FROM shards")]
    done += [
        run_command("build", recipe, "--repair"),
        run_command("build", tmp_path / "no.toml", secret_address(server)),
    ]
    done += [run_command("init", secret_address(server), "--out", tmp_path / "made.toml")]
    monkeypatch.chdir(tmp_path)
    done += [run_command("build", secret_address(server), "--into", "other", "--workers", 1)]
    for result in done:
        assert_clean(result.output + result.stderr)
    assert_clean(str(vars(read_recipe(recipe))) + repr(read_recipe(recipe)))
    recipe.unlink()
    assert not found_in(tmp_path)
    assert Lake(lake).scan("shards").collect()["uri"].unique().to_list() == [server.at("/set.zip")]


def test_a_message_of_a_failed_download_has_no_secret(tmp_path: Path, server: Server) -> None:
    address = secret_address(server)
    server.moved["/moved.zip"] = f"http://127.0.0.1:1/x?token={quote(SIGNATURE, safe='')}"
    hidden = "http://***@127.0.0.1"
    tried = {address: 403, address.replace("/set.zip", "/no.zip"): 0, address.replace("/set.zip", "/moved.zip"): 0}
    tried |= {address.replace(f":{server.server_port}", ":1"): 0, f"https{address[4:]}": 0, f"ftp{address[4:]}": 0}
    for one, status in tried.items():
        server.trouble = [status] if status else []
        with pytest.raises(SourceError) as caught:
            resolve(read_recipe(write_recipe(tmp_path, one)))
        assert hidden[4:] in str(caught.value) or hidden[5:].lstrip("/") in str(caught.value), str(caught.value)
        assert_clean("".join(traceback.format_exception(caught.value)))


def test_the_same_source_without_its_secrets_counts_as_unchanged(tmp_path: Path, server: Server) -> None:
    assert run_command("build", write_recipe(tmp_path, secret_address(server)), "--workers", 1).exit_code == 0
    for file in sorted((tmp_path / "cache").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    # The release has the recipe without secrets; so has one with a variable that is not set.
    hidden = Lake(tmp_path / "lake").snapshot.metadata("releases").units["recipe"]["values"]["source"][0]["uri"]
    assert hidden == server.at("/set.zip").replace("http://", "http://***@") + "?***"
    for address in (hidden, server.at("/set.zip") + "?${IMAGELAKE_NO_SUCH_VARIABLE}"):
        asked = len(server.asked)
        again = run_command("build", write_recipe(tmp_path, address), "--workers", 1, "--prune")
        assert again.exit_code == 0, again.output
        assert len(server.asked) == asked
        assert Lake(tmp_path / "lake").scan("images").collect().height == 12
    with pytest.raises(SourceError, match="which is not stored. Write the whole address into the recipe"):
        run_command("build", write_recipe(tmp_path, hidden.replace("set.zip", "new.zip")), "--workers", 1)


def test_variables_of_the_environment_are_filled_in_and_stay_in_the_stored_recipe(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SET_TOKEN", "letmein")
    address = server.at("/set.zip") + "?token=${SET_TOKEN}"
    assert run_command("build", write_recipe(tmp_path, address), "--workers", 1).exit_code == 0
    assert server.asked == ["/set.zip?token=letmein"]
    recipe = Lake(tmp_path / "lake").snapshot.metadata("releases").units["recipe"]["values"]
    assert recipe["source"][0]["uri"] == address
    assert not found_in(tmp_path / "lake", tmp_path / "cache")


def test_a_lake_that_has_secrets_loses_them_and_reads_nothing_again(tmp_path: Path, server: Server) -> None:
    address = secret_address(server)
    recipe = write_recipe(tmp_path, address)
    assert run_command("build", recipe, "--workers", 1).exit_code == 0
    lake = str(tmp_path / "lake")
    with writing(lake) as transaction:  # as version 0.5 stored it
        commit_shards_table(transaction, stored_shards(Snapshot(lake)).with_columns(uri=pl.lit(address)))
    assert "letmein" in Snapshot(lake).scan("shards").collect()["uri"][0]
    before = Snapshot(lake).version("images")
    again = run_command("build", recipe, "--workers", 1)
    assert "secrets of addresses were stored" in again.output
    assert Snapshot(lake).version("images") == before
    assert Snapshot(lake).scan("shards").collect()["uri"].unique().to_list() == [server.at("/set.zip")]


def test_two_addresses_that_differ_only_in_their_query_are_refused(tmp_path: Path, server: Server) -> None:
    source = '[[source]]\nuri = "{}"\ndataset = "{}"\n'
    file = tmp_path / "in.toml"
    file.write_text(source.format(server.at("/set.zip?id=1"), "a") + source.format(server.at("/set.zip?id=2"), "b"))
    with pytest.raises(RecipeError, match="differ only in its query"):
        resolve(read_recipe(file))


@pytest.mark.parametrize("uri", ["s3://anna:letmein@bucket/set.zip", "s3://bucket/set.zip?X-Amz-Signature=letmein"])
def test_an_address_of_a_bucket_is_no_place_for_secrets(uri: str) -> None:
    part = Recipe.model_validate({"source": [{"uri": uri, "dataset": "a"}]}).source[0]
    assert_clean(part.uri + repr(part) + str(part.model_dump()))
    assert_clean(str(StorageError(f"{uri}: no answer (http://anna:letmein@127.0.0.1:9000/x)")))


@pytest.mark.slow
def test_a_lake_of_0_5_loses_the_secrets_in_notes_recipes_and_shards(tmp_path: Path) -> None:
    if not (archive := DATA / "lake-0.5.0.tar.gz").exists():
        pytest.skip("the lake of 0.5.0 (../shared/data) is not here")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path, filter="data")
    lake, secret = tmp_path / "v0.5.0" / "lake", "https://anna:letmein@example.org/set.zip?token=letmein"
    # Its writer stored the uris of sources in the rows of shards, in the notes of releases and in their commits.
    for table, column in (("shards", "uri"), ("releases", "note")):
        for file in lake.glob(f"{table}/*.parquet"):
            rows = pl.read_parquet(file)
            before = file.stat().st_size
            rows.with_columns(pl.lit(secret).alias(column)).write_parquet(file)
            for log in lake.glob(f"{table}/_delta_log/*.json"):
                log.write_text(log.read_text().replace(f'"size":{before},', f'"size":{file.stat().st_size},'))
    for log in lake.glob("releases/_delta_log/*.json"):
        log.write_text(log.read_text().replace(r"\"uri\": \"", rf"\"uri\": \"{secret}\", \"was\": \""))
    assert "letmein" in (lake / "releases" / "_delta_log" / f"{1:020}.json").read_text()
    old = tables_of(lake)
    # No source of the recipe has that address.
    again = run_command("build", tmp_path / "v0.5.0" / "recipe.toml", "--workers", 1, "--prune")
    assert "secrets of addresses were stored" in again.output
    current = {Path(name) for table in schemas.TABLES for name in file_names(str(lake), table)}
    logs = set(lake.glob("*/_delta_log/*"))
    kept = [file for file in lake.rglob("*") if file.is_file() and not current | logs >= {file}]
    leaks = {line.split(": ")[0] for line in found_in(lake)}
    assert leaks <= set(map(str, kept)), "only files that vacuum deletes have secrets"
    assert old == tables_of(lake)
    assert not [fault for check in verify(str(lake)) for fault in check.faults]


def tables_of(lake: Path) -> dict[int, dict[str, int]]:
    numbers = Lake(lake).scan("releases").collect()["release"]
    return {n: {name: Lake(lake, n).scan(name).collect().height for name in ("images", "splits")} for n in numbers[:2]}


def test_a_part_that_is_sent_to_a_worker_has_no_secret(tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path, "https://anna:letmein@example.org/set.zip?token=letmein"))
    assert "letmein" in recipe.source[0].address
    assert b"letmein" not in pickle.dumps(recipe)


@pytest.mark.parametrize(
    "text", ["//anna:letmein@host/a.zip: gone", " https://u:letmein@h/x?k=letmein", "s3://a:letmein@b/c"]
)
def test_addresses_in_a_text_are_hidden(text: str) -> None:
    assert_clean(redacted_text(text))


def test_an_export_to_an_address_is_refused(small_lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LakeError, match="is an address"):
        export(small_lake.root, "main", Path("https://anna:letmein@host/out"), "npz")
    assert not list(tmp_path.iterdir())

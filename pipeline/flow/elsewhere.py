"""Ingest on other machines: what only this one holds travels there, and what they do not see is an error."""

from dataclasses import replace
from pathlib import Path
from socket import gethostname

from pipeline.encoded import Encoded, Files, Made
from pipeline.errors import LakeError, SourceError
from pipeline.flow.work import Ingested, Job, Load, ingest_shard
from pipeline.sources import Source
from pipeline.sources.download import cache_folder


def carried(source: Source, shard: Encoded) -> Encoded:
    """Read here what workers elsewhere cannot: what was downloaded lies in the cache of this machine.

    All other sources are read by the workers, from storage that every machine sees. Packed archives travel anyway.

    Args:
        source: where the shard is from.
        shard: as the source hands it out.

    Returns:
        The shard with its content, if that is in the cache. A download is one file, so it is never a folder of them.

    Raises:
        SourceError: the source is damaged.
    """
    if isinstance(shard.contents, Made) and source.path.is_relative_to(cache_folder()):
        return replace(shard, contents=shard.contents.make())
    return shard


def ingest_elsewhere(job: Job, load: Load) -> Ingested:
    """Ingest a shard on a machine that may not see what the driver sees; runs in a worker.

    Where a folder is missing, each of its files would be a reject, and what was written would be in no lake.

    Raises:
        SourceError: this machine does not see the source.
        LakeError: this machine does not see the lake.
        DiskFullError: no space is left.
    """
    if "://" not in job.root and not Path(job.root).is_dir():
        raise LakeError(f"{gethostname()}, a node of the cluster, does not see the lake at {job.root}. {_SHARED}")
    contents = load.shard.contents
    if isinstance(contents, Files) and contents.names and not Path(contents.names[0]).parent.is_dir():
        raise _unseen(load, str(Path(contents.names[0]).parent))
    try:
        return ingest_shard(job, load)
    except FileNotFoundError as error:
        raise _unseen(load, error.filename or str(error)) from error


_SHARED = "Put it on storage that every node sees under one path, or build with --engine local. Nothing was committed."


def _unseen(load: Load, place: str) -> SourceError:
    title = f"{load.dataset}/{load.split} ({load.uri})"
    return SourceError(f"{title}: {gethostname()}, a node of the cluster, does not see {place}. {_SHARED}")

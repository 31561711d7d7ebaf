"""Keep compiled templates beside their sources, as Python keeps modules: compiling takes longer than a small report."""

import marshal
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path

import jinja2
from jinja2.bccache import Bucket


class CompiledTemplates(jinja2.BytecodeCache):
    """The compiled templates, where Python keeps this module compiled, or nowhere.

    Args:
        code: modules whose functions may be applied while a template is compiled.
    """

    def __init__(self, code: Iterable[Path]) -> None:
        self._made_by = f"{jinja2.__version__} {[(file.name, file.stat().st_mtime_ns) for file in code]}"

    def get_source_checksum(self, source: str) -> str:
        """Return the checksum of all that a compiled template is made from."""
        return super().get_source_checksum(source + self._made_by)

    def load_bytecode(self, bucket: Bucket) -> None:
        """Load a compiled template, unless it was made from something else."""
        with suppress(OSError, EOFError, ValueError, TypeError):
            data = self._file(bucket).read_bytes()
            mark = bucket.checksum.encode()
            if data.startswith(mark):
                bucket.code = marshal.loads(data[len(mark) :])  # noqa: S302 - trusted as much as the modules beside it

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep a compiled template, if Python may write here."""
        if sys.dont_write_bytecode:
            return
        file = self._file(bucket)
        draft = file.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(bucket.checksum.encode() + marshal.dumps(bucket.code))
            draft.replace(file)

    def _file(self, bucket: Bucket) -> Path:
        return Path(cache_from_source(str(Path(__file__).with_name(f"{bucket.key}.py"))))

"""Keep compiled templates beside their sources, as Python keeps modules: compiling takes longer than a small report."""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path

import jinja2
from jinja2.bccache import Bucket
from xxhash import xxh3_128_digest

_DIGEST_BYTES = 16


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
        """Load a compiled template, unless it was made from something else or is damaged."""
        with suppress(OSError):
            stored = self._file(bucket).read_bytes()
            # jinja2 reads it as Python reads the modules beside it, and compares the checksum of the template.
            if stored[:_DIGEST_BYTES] == xxh3_128_digest(stored[_DIGEST_BYTES:]):
                bucket.bytecode_from_string(stored[_DIGEST_BYTES:])

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep a compiled template, if Python may write here."""
        if sys.dont_write_bytecode:
            return
        file = self._file(bucket)
        draft = file.with_suffix(f".{os.getpid()}")
        compiled = bucket.bytecode_to_string()
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(xxh3_128_digest(compiled) + compiled)
            draft.replace(file)

    def _file(self, bucket: Bucket) -> Path:
        return Path(cache_from_source(str(Path(__file__).with_name(f"{bucket.key}.py"))))

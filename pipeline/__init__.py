"""imagelake: labelled image archives in; a queryable, deduplicated, leak-free lake out.

`from pipeline import Lake` opens a lake, and `open_npy` what was exported from one. Builds are started by the
`imagelake` command or `pipeline.flow.build`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.arrays.mapped import open_npy
    from pipeline.handle import Lake

__all__ = ["Lake", "open_npy"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562: polars and pyarrow are imported when they are asked for
    if name == "Lake":
        from pipeline.handle import Lake  # noqa: PLC0415 - as said above

        return Lake
    if name == "open_npy":
        from pipeline.arrays.mapped import open_npy  # noqa: PLC0415 - as said above

        return open_npy
    raise AttributeError(f"module 'pipeline' has no attribute '{name}'")

"""imagelake: labelled image archives in; a queryable, deduplicated, leak-free lake out.

`from pipeline import Lake` opens a lake. Builds are started by the `imagelake` command or `pipeline.flow.build`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.handle import Lake

__all__ = ["Lake"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562: polars and pyarrow are imported when Lake is asked for
    if name == "Lake":
        from pipeline.handle import Lake  # noqa: PLC0415

        return Lake
    raise AttributeError(f"module 'pipeline' has no attribute '{name}'")

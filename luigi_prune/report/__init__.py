"""Reports on result tables: figures, Markdown, an HTML page, TensorBoard logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luigi_prune.report.write import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    # Imported lazily: training jobs import `luigi_prune.report.tensorboard` and must not load matplotlib.
    if name == "write_report":
        from luigi_prune.report.write import write_report

        return write_report
    raise AttributeError(name)

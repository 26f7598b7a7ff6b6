"""Tables for people."""

from __future__ import annotations

import pandas as pd

NONE = "—"  # not defined


def markdown_table(table: pd.DataFrame) -> str:
    """The table in Markdown, its cells as they are."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)

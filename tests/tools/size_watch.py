"""Print the ten longest functions and files of the package, as a hint where to look for a seam."""

from __future__ import annotations

import ast
from pathlib import Path

from checkout import ROOT, modules

SHOWN = 10
LONG_FUNCTION = 60  # from here on a reviewer asks why
LONG_FILE = 500


def functions(path: Path) -> list[tuple[int, str]]:
    """Return (lines, name and place) of each function in a file."""
    place = path.relative_to(ROOT)
    return [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{place}:{node.lineno} {node.name}")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def show(title: str, rows: list[tuple[int, str]], limit: int) -> None:
    """Print the longest rows, with a mark at those over the limit."""
    print(f"{title} (review over {limit})")
    for lines, name in sorted(rows, reverse=True)[:SHOWN]:
        print(f"{lines:6}{' *' if lines > limit else '  '} {name}")


def main() -> None:
    """Print both tables; there is no hard limit, so this never fails."""
    paths = list(modules().values())
    files = [
        (len(path.read_text(encoding="utf-8").splitlines()), str(path.relative_to(ROOT)))
        for path in paths
    ]
    show("Longest functions", [row for path in paths for row in functions(path)], LONG_FUNCTION)
    show("Longest files", files, LONG_FILE)
    print(f"{sum(lines for lines, _ in files)} lines in {len(files)} files")


if __name__ == "__main__":
    main()

"""Change the protocol in a thousand small ways and see whether a test minds each of them.

    tox run -e mutation                  fails below 95 %, and shows what survived
    tox run -e mutation -- --write       writes that into docs/mutation.md too

mutmut makes the mutants and runs the tests, in a copy of the tree. What the settings in
pyproject.toml leave out are two tests that count calls or take seconds, and prove nothing here.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from difflib import unified_diff
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEEDED = ["veloflow", "units", "workflows", "tests", "pyproject.toml", "README.md"]
GOAL = 0.95
PAGE = ROOT / "docs" / "mutation.md"
#: what mutmut calls a mutant that a test has noticed
KILLED = {"killed", "timeout", "segfault", "caught by type check"}

INTRODUCTION = """# Mutation testing of the protocol

Written by `tox run -e mutation -- --write` (for long): each mutant is one small change of
`veloflow/protocol/`, and is killed if a test of `tests/protocol/` or of the machines of
`tests/kvstore/` fails with it.

**{killed} of {total} mutants are killed: {share:.1%}** (the goal is {goal:.0%}).
The others are below, each as the line before and after. Most cannot be told from the original: a
`None` that is the value of an ordered set, `False` that becomes `None`, a `<` between two floats
that are never equal.
"""


def main() -> int:
    """Run mutmut in a copy and judge what it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once (2)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = Path(folder)
        for name in NEEDED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / name)
        run = [sys.executable, "-m", "mutmut", "run", "--max-children", str(options.jobs)]
        subprocess.run(run, cwd=copy, check=True)
        results = _results(copy)
        survivors = [name for name, verdict in results.items() if verdict not in KILLED]
        lines = _describe(copy, survivors)
    killed = len(results) - len(survivors)
    share = killed / len(results)
    text = INTRODUCTION.format(killed=killed, total=len(results), share=share, goal=GOAL)
    print(*lines, "", dict(Counter(results.values())), sep="\n")
    print(f"{killed} of {len(results)} mutants are killed: {share:.1%}")
    if options.write:
        PAGE.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")
    return 0 if share >= GOAL else 1


def _results(copy: Path) -> dict[str, str]:
    command = [sys.executable, "-m", "mutmut", "results", "--all", "true"]
    told = subprocess.run(command, cwd=copy, check=True, capture_output=True, text=True).stdout
    pairs = (line.strip().rsplit(": ", 1) for line in told.splitlines() if "__mutmut_" in line)
    return dict(pairs)


def _describe(copy: Path, survivors: list[str]) -> list[str]:
    """Return the survivors, each as the changed line before and after, by function."""
    lines, last = [], ""
    for full in survivors:
        module, name = full.rsplit(".", 1)
        source = (copy / "mutants" / module.replace(".", "/")).with_suffix(".py")
        functions = _functions(source.read_text(encoding="utf-8"))
        stem, number = name.rsplit("_", 1)
        title = f"{module.rsplit('.', 1)[1]}.{_readable(stem)}"
        if title != last:
            lines += ["", f"## {title}", ""]
            last = title
        changes = unified_diff(functions[f"{stem}_orig"], functions[name], n=0, lineterm="")
        changed = [one for one in changes if not one.startswith(("---", "+++", "@@"))]
        lines += [
            f"{number}.",
            "",
            "```diff",
            *(one[0] + one[1:].strip() for one in changed),
            "```",
            "",
        ]
    return lines


def _readable(stem: str) -> str:
    """Return the function's name from ``xǁMasterǁ_settle__mutmut``."""
    return (
        stem.removesuffix("__mutmut")
        .removeprefix("x")
        .replace("ǁ", ".")
        .strip(".")
        .removeprefix("_")
    )


def _functions(text: str) -> dict[str, list[str]]:
    """Return the lines of each mutant by its name, with a common name in its head."""
    functions: dict[str, list[str]] = {}
    name, indent = "", 0
    for line in text.splitlines():
        head = re.match(r"( *)def (x\S+__mutmut_\w+)\(", line)
        if head:
            indent, name = len(head[1]), head[2]
            functions[name] = [line.replace(name, "f")]
        elif (
            name
            and line.strip()
            and len(line) - len(line.lstrip()) <= indent
            and ")" not in line[: indent + 1]
        ):
            name = ""
        elif name:
            functions[name].append(line)
    return functions


if __name__ == "__main__":
    sys.exit(main())

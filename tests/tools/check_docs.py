"""Check the documentation: links lead somewhere, and code blocks that claim to run do run.

A fenced block claims something by the second word after its opening fence:

- ``python run``          a script; it must exit with 0
- ``python definition``   a definition file; ``veloflow run FILE --dry-run`` must accept it
- ``sh run``              a shell script, with ``veloflow`` on the path; it must exit with 0

Each block runs in an empty folder of its own. Links to other sites are not followed.

The table of files in docs/architecture.md must be what the files' first lines say, and the diagrams
in docs/protocol.md what the tables of transitions say; ``--write`` brings both up to date.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from checkout import ROOT, modules
from veloflow.protocol import slave, slaves

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w+) +(run|definition)\s*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
ANY_FENCE = re.compile(r"^```.*?^```\s*$", re.MULTILINE | re.DOTALL)
TIME_LIMIT = 300.0


@dataclass(frozen=True)
class Block:
    """A piece of code in a document that claims to run."""

    place: str
    language: str
    claim: str
    code: str


def documents() -> list[Path]:
    """Return every Markdown file of the repository that people read."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def anchors(text: str) -> set[str]:
    """Return the names that headings can be linked by, made as code hosts make them."""
    headings = re.findall(r"^#+ +(.+?)\s*$", ANY_FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def broken_links(path: Path) -> Iterator[str]:
    """Yield one line for each link of a document that leads nowhere."""
    for target in LINK.findall(ANY_FENCE.sub("", path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists():
            yield f"{path.relative_to(ROOT)}: no such file: {target}"
        elif anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
            yield f"{path.relative_to(ROOT)}: no such heading: {target}"


def blocks(path: Path) -> Iterator[Block]:
    """Yield the code blocks of a document that claim to run."""
    text = path.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(f"{path.relative_to(ROOT)}:{line}", match[1], match[2], match[3])


def command(block: Block) -> tuple[str, list[str]]:
    """Return the name of the file that holds the block, and the command that runs it."""
    match block.language, block.claim:
        case "python", "run":
            return "example.py", [sys.executable, "example.py"]
        case "python", "definition":
            return "example.py", ["veloflow", "run", "example.py", "--dry-run"]
        case "sh", "run":
            return "example.sh", ["sh", "-eu", "example.sh"]
    raise ValueError(f"{block.place}: a block cannot be '{block.language} {block.claim}'")


def complaint(block: Block) -> str | None:
    """Run a block; return what went wrong, or None."""
    name, words = command(block)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_text(block.code, encoding="utf-8")
        done = subprocess.run(
            words,
            cwd=folder,
            env=os.environ | {"PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIME_LIMIT,
            check=False,
        )
    if done.returncode == 0:
        return None
    return f"{block.place}: exit code {done.returncode}\n{done.stdout}"


def table_of_files() -> str:
    """Return the table of files as Markdown, made from the first line of each."""
    rows = [
        f"| [{(name := path.relative_to(ROOT))}](../{name}) | {purpose(path)} |\n"
        for path in modules().values()
    ]
    return "".join(["| file | purpose |\n|---|---|\n", *rows])


def purpose(path: Path) -> str:
    """Return the first line of a file's docstring, fit for a cell of a table."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].replace("|", "\\|")


def diagram(transitions: Mapping[Enum, Mapping[str, Enum]]) -> str:
    """Return a table of transitions as a Mermaid diagram; the first state is where it begins."""
    lines = [f"    [*] --> {_id(next(iter(transitions)))}"]
    for state, ways in transitions.items():
        lines.append(f'    state "{state.value}" as {_id(state)}')
        events: dict[Enum, list[str]] = {}
        for event, target in ways.items():
            events.setdefault(target, []).append(event)
        lines += [f"    {_id(state)} --> {_id(to)}: {', '.join(why)}" for to, why in events.items()]
        if not ways:
            lines.append(f"    {_id(state)} --> [*]")
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```", ""])


def _id(state: Enum) -> str:
    return state.name.lower()


GENERATED = (
    ("docs/architecture.md", "files", table_of_files),
    ("docs/protocol.md", "slaves", lambda: diagram(slaves.TRANSITIONS)),
    ("docs/protocol.md", "slave", lambda: diagram(slave.TRANSITIONS)),
)
"""Document, name of the part between ``begin`` and ``end``, and what must stand there."""


def old_parts(*, write: bool) -> Iterator[str]:
    """Yield a complaint for each generated part that is old; write it anew instead if told so."""
    for name, part, make in GENERATED:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        begin, end = f"<!-- {part}: begin -->\n", f"<!-- {part}: end -->"
        if begin not in text or end not in text:
            yield f"{name}: there is no part {part!r} between its marks"
            continue
        head, _, rest = text.partition(begin)
        new = head + begin + make() + end + rest.partition(end)[2]
        if new != text and write:
            path.write_text(new, encoding="utf-8")
        elif new != text:
            yield f"{name}: the part {part!r} is old: run this script with --write"


def main() -> int:
    """Check all documents; return the exit code."""
    old = list(old_parts(write="--write" in sys.argv[1:]))
    paths = documents()
    runnable = [block for path in paths for block in blocks(path)]
    problems = old + [line for path in paths for line in broken_links(path)]
    problems += [text for block in runnable if (text := complaint(block)) is not None]
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(paths)} documents, {len(runnable)} blocks run, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

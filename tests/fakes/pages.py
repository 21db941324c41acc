"""The pages of documentation, and their blocks of code, links, anchors and tables."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    "README": ROOT / "README.md",
    "functions": ROOT / "functions/README.md",
    "ledger_core": ROOT / "ledger_core/README.md",
    "infra": ROOT / "infra/README.md",
    "tests": ROOT / "tests/README.md",
}
"""In reading order: the snippets of a page may use those of the pages before it."""
LINK = re.compile(r"\[(?:[^\]]|\](?!\())*?\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", flags=re.MULTILINE)
FENCE = re.compile(r"^ *```.*?^ *```$", flags=re.MULTILINE | re.DOTALL)


def page(name: str) -> str:
    """The text of a page."""
    return PAGES[name].read_text(encoding="utf-8")


def section(name: str, heading: str) -> str:
    """The text under a heading of a page, up to the next heading of any level."""
    _, _, rest = page(name).partition(f"# {heading}\n")
    assert rest, f"{PAGES[name]} has no heading '{heading}'"
    return re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]


def blocks(name: str, language: str) -> list[str]:
    """The blocks of code of a language in a page, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page(name), flags=re.MULTILINE | re.DOTALL)


def exchanges(name: str) -> Iterator[tuple[str, str]]:
    """Each command in the console blocks of a page, with its output."""
    for block in blocks(name, "console"):
        for part in block.split("\n$ "):
            command, *output = re.split(r"(?<!\\)\n", part.removeprefix("$ "), maxsplit=1)
            yield command, "".join(output)


def files() -> list[Path]:
    """Every Markdown file of the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    git = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in git.stdout.splitlines() if (ROOT / name).exists()]


def links(path: Path) -> list[str]:
    """The targets of the links in a file, without those in blocks of code."""
    return LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8")))


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes for the headings of a file."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    return {_anchor(heading) for heading in HEADING.findall(text)}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")

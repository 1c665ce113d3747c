"""All generated pages of a checkout: what they should say, what is stale, and writing them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fencepost_analyzer.docs import failure_pages, invariant_pages, reference_pages, strategy_pages, vocabulary_page
from fencepost_analyzer.docs.errors import DocsError
from fencepost_analyzer.docs.sections import Page, fill

ROOT = Path(__file__).resolve().parents[3]


def pages() -> Iterator[Page]:
    """Every page that has generated sections, as the code has them now."""
    yield from invariant_pages.pages()
    yield from failure_pages.pages()
    yield from strategy_pages.pages()
    yield from reference_pages.pages()
    yield from vocabulary_page.pages()


def changed(root: Path) -> dict[Path, str]:
    """The pages below `root` that are not as they should be, and what they should be."""
    if not (root / "pyproject.toml").is_file():
        raise DocsError(f"{root} is no checkout of fencepost: the pages are written where the code is checked out.")
    found: dict[Path, str] = {}
    for page in pages():
        path = root / page.path
        text = path.read_text("utf-8") if path.is_file() else None
        wanted = fill(page, text)
        if wanted != text:
            found[path] = wanted
    return found


def write(root: Path) -> list[Path]:
    """Writes the pages that are not as they should be; answers which."""
    found = changed(root)
    for path, text in found.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return list(found)

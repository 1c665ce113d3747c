"""The README keeps its word: what it shows is what happens."""

from __future__ import annotations

from fencepost_analyzer.docs import consoles
from fencepost_analyzer.docs.generate import ROOT

README = (ROOT / "README.md").read_text("utf-8")


def test_the_demo_and_the_import_print_what_the_readme_shows() -> None:
    """The demo on real processes, and the import of the example, print the README's lines but for ids and times."""
    assert commands()[:2] == ["fencepost demo", "fencepost import tests/outside/data/celery.jsonl --id celery"]
    differing = "\n\n".join(map(str, consoles.differences(README, ROOT)))
    assert differing == "", f"README.md shows another output (`make docs` writes it again):\n{differing}"


def test_the_readme_names_the_targets_that_the_makefile_has() -> None:
    """Whoever types what the README says finds a target of that name."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    blocks = [block.body for block in consoles.blocks(README) if block.language == "sh"]
    targets = [line.split()[1] for block in blocks for line in block.splitlines() if line.startswith("make ")]
    assert targets
    assert [target for target in targets if f"\n{target}:" not in makefile] == []


def commands() -> list[str]:
    shown = [block.body for block in consoles.blocks(README) if block.language == "console"]
    return [command for body in shown for command, _ in consoles.commands(body)]

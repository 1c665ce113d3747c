"""The pages say what the code does: generated sections are fresh, nothing lacks an entry, links and commands work."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import typer

from fencepost_analyzer import catalogue
from fencepost_analyzer.catalogue import failure_modes
from fencepost_analyzer.cli.app import build
from fencepost_analyzer.docs import __main__ as command
from fencepost_analyzer.docs import consoles, failure_pages, states, strategy_pages, words
from fencepost_analyzer.docs.consoles import Difference
from fencepost_analyzer.docs.errors import DocsError
from fencepost_analyzer.docs.generate import ROOT, changed
from fencepost_analyzer.docs.markup import anchor
from fencepost_analyzer.docs.sections import Page, Section, fill
from fencepost_analyzer.invariants import load
from fencepost_analyzer.lab import outcomes as simulated
from fencepost_analyzer.strategies import UnknownStrategy, not_yet, strategies, strategy
from fencepost_runtime.policy import preset, presets
from fencepost_runtime.scenario import Scenario

DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"])
HOW_TO = sorted((DOCS / "how-to").glob("*.md"))
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
AT_ONCE = 2


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_of(page: str) -> str:
    return (DOCS / page).read_text("utf-8")


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)


@pytest.fixture(scope="module")
def shown() -> Iterator[dict[Path, Future[list[Difference]]]]:
    """For each how-to page, the commands that print something else than it shows."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {path: pool.submit(consoles.differences, path.read_text("utf-8"), ROOT) for path in HOW_TO}
        pool.shutdown(cancel_futures=True)


# The commands of the how-to pages run beside it: they mostly wait for each other.
@pytest.mark.usefixtures("shown")
def test_no_generated_section_is_stale() -> None:
    """What `make docs` would write is what the pages say already."""
    assert [name_of(path) for path in changed(ROOT)] == []


def test_every_invariant_has_its_section() -> None:
    """Each invariant that is judged has a section in docs/01, with words of its own behind the generated ones."""
    text = text_of("01-invariants.md")
    for one in load():
        _, _, after = text.partition(f"<!-- fencepost:end {one.id} -->")
        assert f"{one.id} {one.title}" in headings(text)
        assert len(after.split("\n## ")[0].strip()) > 80, f"{one.id} has no words of its own"


def test_every_failure_mode_has_its_page() -> None:
    """Each failure mode has a page, a row in the overview and a column in the matrix, and no page is left over."""
    assert {path.stem for path in (DOCS / "failure-modes").glob("*.md")} == set(failure_modes())
    overview = text_of("03-failure-modes.md")
    assert [mode for mode in failure_modes() if f"[{mode}](failure-modes/{mode}.md)" not in overview] == []


def test_every_strategy_policy_and_command_has_its_entry() -> None:
    """Each recovery strategy, preset and command is on its page."""
    titles = {f"{one.id} {one.title}" for one in strategies().values()}
    assert titles <= set(headings(text_of("04-recovery-strategies.md")))
    assert [name for name in presets() if f"| `{name}` |" not in text_of("reference/policies.md")] == []
    root: Any = typer.main.get_command(build())
    groups = {name: getattr(inner, "commands", {}) for name, inner in root.commands.items()}
    names = {f"`fencepost {name}`" for name in groups}
    names |= {f"`fencepost {name} {below}`" for name, inner in groups.items() for below in inner}
    assert names <= set(headings(text_of("reference/cli.md")))


def test_the_whole_catalogue_is_either_here_or_in_the_list_of_what_is_not() -> None:
    """Of the ids that the catalogue gave out, each is implemented or listed as not yet, never both."""
    families = {
        "invariants": ("INV", 20, {one.id for one in load()}),
        "failure_modes": ("FM", 20, set(failure_modes())),
        "strategies": ("RS", 16, set(strategies())),
    }
    for family, (prefix, last, here) in families.items():
        assert here & set(not_yet()[family]) == set()
        assert here | set(not_yet()[family]) == {f"{prefix}-{number:03}" for number in range(1, last + 1)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_link_is_dead(page: Path) -> None:
    """Every link to a file leads to one, and every link to a heading to one that is there."""
    targets = LINK.findall(FENCED.sub("", page.read_text("utf-8")))
    assert [target for target in targets if "://" not in target and not leads_somewhere(page, target)] == []


def leads_somewhere(page: Path, target: str) -> bool:
    path, _, fragment = target.partition("#")
    found = (page.parent / path).resolve() if path else page
    if not fragment or not found.is_file():
        return found.exists()
    return fragment in {anchor(heading) for heading in headings(found.read_text("utf-8"))}


def test_every_page_can_be_reached_from_the_readme() -> None:
    """Following links from the README leads to every page of docs/."""
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        targets = (target.partition("#")[0] for target in LINK.findall(page.read_text("utf-8")))
        waiting += [(page.parent / path).resolve() for path in targets if path and "://" not in path]
    assert {name_of(page) for page in DOCS.rglob("*.md")} - {name_of(page) for page in reached} == set()


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/decisions.md", "README.md"])
def test_files_that_are_named_exist(page: str) -> None:
    """A module or file that a page names in code is one of the repository."""
    named = re.findall(r"`([\w/*-]+\.(?:py|sql|toml|md))`", (ROOT / page).read_text("utf-8"))
    files = [path for path in ROOT.rglob("*.*") if ".venv" not in path.parts]
    missing = [name for name in named if not any(path.match(name) for path in files)]
    assert missing == []


def commands_of(page: Path) -> Iterator[list[str]]:
    """The fencepost commands that a page's `sh` blocks show, as arguments."""
    for block in consoles.blocks(page.read_text("utf-8")):
        for line in block.body.splitlines() if block.language == "sh" else ():
            if line.startswith("fencepost "):
                yield shlex.split(line.partition(" | ")[0], comments=True)[1:]


@pytest.mark.parametrize("page", [page for page in PAGES if list(commands_of(page))], ids=name_of)
def test_commands_that_are_only_shown_can_be_parsed(page: Path) -> None:
    """A command in a block that is not run has a name and options that the command line knows."""
    for arguments in commands_of(page):
        parsed: Any = typer.main.get_command(build())
        context = parsed.make_context("fencepost", arguments)
        while hasattr(parsed, "commands"):
            rest = [*context._protected_args, *context.args]
            name, parsed, rest = parsed.resolve_command(context, rest)
            context = parsed.make_context(name, rest, parent=context)


def test_the_state_diagram_has_the_moves_that_the_rules_make() -> None:
    """The mermaid diagram of a job's states has exactly the changes of state that some operation makes."""
    diagram = text_of("02-state-model.md").partition("## An execution")[0]
    drawn = set(re.findall(r"^ +(\S+) --> (\S+):", diagram, re.MULTILINE))
    assert {("none" if before == "[*]" else before, after) for before, after in drawn} == states.edges()


@pytest.mark.parametrize("name", strategies())
def test_the_row_of_a_strategy_shows_that_it_matters(name: str) -> None:
    """Added alone, each strategy changes what comes of a failure mode, or of the scenario that it brings along."""
    one = strategy(name)
    own = failure_pages.by_preset()
    changed_modes = [mode for mode in failure_modes() if strategy_pages.alone()[name, mode] != own[mode, "own"]]
    if one.proof is None:
        assert changed_modes
    else:
        scenario = one.proof.scenario
        assert simulated.endings(scenario) != simulated.endings(scenario.with_changes(one.on[0]))


def test_a_strategy_is_on_in_policies_that_have_its_fields() -> None:
    """Fields are compared as they are, numbers as bounds."""
    assert [name for name, one in strategies().items() if one.is_on(preset("fenced"))] == ["RS-002", "RS-004", "RS-008"]
    assert not strategy("RS-008").is_on(preset("celery-redis"))


def test_an_unknown_strategy_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownStrategy, match="There are: RS-001, "):
        strategy("RS-099")


def test_the_failure_mode_of_the_how_to_keeps_its_claims() -> None:
    """The file that the how-to page shows is a failure mode that the tests of the catalogue would accept."""
    page = (DOCS / "how-to" / "add-a-failure-mode.md").read_text("utf-8")
    block = next(block for block in consoles.blocks(page) if block.file == "FM-900.toml")
    mode = catalogue._failure_mode(tomllib.loads(block.body))
    cases = {"own": mode.scenario, "near-miss": mode.near_miss, "heals": mode.scenario.with_policy(preset(mode.heals))}
    cases |= {one.policy: mode.scenario.with_policy(preset(one.policy)) for one in mode.seems}
    found = {name: outcome.violated for name, outcome in simulated.outcomes(cases).items()}
    claims: dict[str, tuple[str, ...]] = {"own": mode.violates, "near-miss": (), "heals": ()}
    assert found == claims | {one.policy: one.violates for one in mode.seems}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_examples_that_are_not_run_can_be_read(page: Path) -> None:
    """Python that a page shows compiles, and a TOML table with queues is a scenario."""
    for block in consoles.blocks(page.read_text("utf-8")):
        if block.language == "python":
            compile(block.body, name_of(page), "exec")
        elif block.language == "toml":
            table = tomllib.loads(block.body)
            assert Scenario.from_dict(table.get("scenario", table)).jobs


def test_a_page_cannot_repeat_a_claim_that_the_simulator_refutes() -> None:
    """Where a failure mode's file says otherwise than the simulator, no page is written."""
    found = dict(failure_pages.by_preset())
    found["FM-003", "own"] = found["FM-001", "own"]
    with pytest.raises(DocsError, match=r"FM-003.toml says otherwise than the simulator of own: INV-001, INV-002"):
        failure_pages._agree_with_catalogue(found)


PAGE = Page("a.md", "# A\n", {"one": Section("## One", "new"), "two": Section("## Two", "too")})


def test_filling_a_page_keeps_what_people_wrote() -> None:
    """Only what stands between markers is replaced; a section that is missing is appended under its heading."""
    text = "# A\n\nOurs.\n\n<!-- fencepost:begin one -->\nold\n<!-- fencepost:end one -->\nStill ours.\n"
    assert fill(PAGE, text) == (
        "# A\n\nOurs.\n\n<!-- fencepost:begin one -->\n\nnew\n\n<!-- fencepost:end one -->\nStill ours.\n"
        "\n## Two\n\n<!-- fencepost:begin two -->\n\ntoo\n\n<!-- fencepost:end two -->\n"
    )
    assert fill(PAGE, fill(PAGE, text)) == fill(PAGE, text)
    assert fill(PAGE, None).startswith("# A\n\n## One\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<!-- fencepost:begin one -->\n", "has no end"),
        ("<!-- fencepost:end one -->\n", "do not pair"),
        ("<!-- fencepost:begin one -->\n<!-- fencepost:begin two -->\n", "do not pair"),
        ("<!-- fencepost:begin old -->\n<!-- fencepost:end old -->\n", "nothing generates any more"),
    ],
)
def test_a_page_with_broken_markers_is_refused(text: str, problem: str) -> None:
    """Markers that do not pair, and sections that nothing generates, are said instead of overwritten."""
    with pytest.raises(DocsError, match=problem):
        fill(PAGE, text)


def test_names_without_words_and_words_without_names_are_refused() -> None:
    """A new name of the code needs a meaning, and a meaning needs its name."""
    with pytest.raises(DocsError, match="has no \\[gaps\\] moon"):
        words.described("gaps", ["moon"])
    with pytest.raises(DocsError, match="does not know any more"):
        words.described("gaps", ["torn_tail"])


def test_a_console_that_shows_something_else_is_found() -> None:
    """What a command really prints is compared with what the page shows, but for ids and times."""
    same = "$ echo took 3.2 ms in 4bf92f3577b34da6\ntook 71 ms in 00f067aa0ba902b7\n"
    page = f"```console\n{same}$ echo two\nthree\n```\n"
    (found,) = consoles.differences(page, ROOT)
    assert (found.command, found.shown, found.printed) == ("echo two", ("three",), ("two",))
    assert consoles.refreshed(page, ROOT) == page.replace("three", "two")


def test_a_console_runs_with_its_files_and_a_failure_is_an_error() -> None:
    """A block after a file marker is written first; a command that fails stops the page unless it says so."""
    file = "<!-- file: a/b.txt -->\n```text\nhello\n```\n"
    page = f"{file}\n```console\n$ cat a/b.txt\nhello\n$ cat \\\n> a/c.txt || echo no\n```\n"
    (found,) = consoles.differences(page, ROOT)
    assert found.printed[-1] == "no"
    with pytest.raises(DocsError, match="ended with exit code 7"):
        consoles.differences("```console\n$ exit 7\n```\n", ROOT)


def test_the_command_says_what_is_stale(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m fencepost_analyzer.docs --check` names stale pages and ends with 1, and writes nothing."""
    monkeypatch.setattr(command, "changed", lambda root: {root / "docs" / "a.md": ""})
    assert command.main(["--check"]) == 1
    assert capsys.readouterr().out == "stale docs/a.md\n"
    monkeypatch.setattr(command, "changed", lambda _: {})
    assert command.main(["--check"]) == 0
    assert command.main(["--nonsense"]) == 2


def test_without_a_checkout_it_says_so(tmp_path: Path) -> None:
    """Where there is no checkout there are no pages to write."""
    with pytest.raises(DocsError, match="is no checkout of fencepost"):
        changed(tmp_path)


@pytest.mark.parametrize("page", HOW_TO, ids=lambda path: path.stem)
def test_the_commands_of_a_how_to_page_print_what_it_shows(
    page: Path, shown: dict[Path, Future[list[Difference]]]
) -> None:
    differing = "\n\n".join(map(str, shown[page].result()))
    assert differing == "", f"{name_of(page)} shows another output (`make docs` writes it again):\n{differing}"

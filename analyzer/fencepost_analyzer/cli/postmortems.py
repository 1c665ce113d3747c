"""`postmortem new`, `attach` and `verify`: the proof in a folder, and whether it still stands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fencepost_analyzer import text
from fencepost_analyzer.cli.failures import UsageError
from fencepost_analyzer.cli.options import AsJson, Invariants, Mappings, Postmortems, Recordings, Run, session
from fencepost_analyzer.cli.strict import StrictTyper
from fencepost_analyzer.render import Output, Styled, bold, dim, word
from fencepost_analyzer.version import __version__

if TYPE_CHECKING:
    from fencepost_analyzer.postmortem import Check

POSTMORTEMS = Path("postmortems")

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A postmortem's folder.", show_default=False)]


def build() -> typer.Typer:
    app = StrictTyper(
        help="The proof in a folder, beside a page for people; and whether it still stands.",
        add_completion=False,
        rich_markup_mode=None,
        invoke_without_command=True,
    )
    app.callback()(_bare)
    app.command("new", short_help="Write a postmortem's folder.")(new)
    app.command("attach", short_help="Add a query, a file or another recording.")(attach)
    app.command("verify", short_help="Check that the evidence still stands.")(verify)
    return app


def _bare(context: typer.Context) -> None:
    from fencepost_analyzer.cli.app import explain_if_bare

    explain_if_bare(context)


def new(
    context: typer.Context,
    run: Run,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="The page's title.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="SLUG", help="The folder's name after its number.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", metavar="NAME", help="Replay under this policy too; may be given several times."),
    ] = None,
    invariants: Invariants = None,
    mappings: Mappings = None,
    postmortems: Postmortems = POSTMORTEMS,
    recordings: Recordings = None,
    as_json: AsJson = False,
) -> int:
    """Write a postmortem's folder: a page to finish, and all the evidence beside it.

    \b
      fencepost postmortem new latest
      fencepost postmortem new latest --title "Customers charged twice" --policy fenced --policy safe

    The folder holds the recording, verdicts, witnesses, the SQL that found them, the replays (verify, and forks under
    --policy; else under the policy that heals the failure mode, or safe) and the commands to run it all again.
    What people must write is marked "To fill in". Look through the copied recording before you share it.
    """
    from fencepost_analyzer import postmortem
    from fencepost_runtime.policy import preset

    here = session(context, recordings, as_json)
    policies = [preset(one) for one in dict.fromkeys(policy or ())]
    with here.out.working("judging, replaying, writing …"), here.case(run, invariants, mappings) as case:
        folder = postmortem.new(
            case, postmortems=postmortems, name=name, title=title, replays=postmortem.usual(case, policies)
        )
    blanks = postmortem.blanks(folder)
    here.out.line("wrote ", bold(folder), f": {text.counted(blanks, 'part')} for you to fill in")
    here.out.next_steps(f"postmortem verify {word(folder)}", f'postmortem attach {word(folder)} --query "SELECT …"')
    if here.out.as_json:
        here.out.document({"postmortem": str(folder), "recording": case.recording.id, "blanks": blanks})
    return 0


def attach(
    context: typer.Context,
    folder: Folder,
    query: Annotated[
        str | None, typer.Option("--query", metavar='"SELECT …"', help="A query on its recording, and the answer.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", metavar="PATH", help="A copy of a file.")] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Another recording, with verdicts.")] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="What to call the query.")] = None,
    recordings: Recordings = None,
    as_json: AsJson = False,
) -> int:
    """Add evidence to a postmortem. What people wrote in it stays as it is.

    \b
      fencepost postmortem attach postmortems/007-double-charge --query "SELECT * FROM effects" --name effects
      fencepost postmortem attach postmortems/007-double-charge --file grafana.png
      fencepost postmortem attach postmortems/007-double-charge --run latest
    """
    from fencepost_analyzer import postmortem

    here = session(context, recordings, as_json)
    if sum(one is not None for one in (query, file, run)) != 1:
        raise UsageError("attach one thing at a time: --query, --file or --run")
    with here.out.working("attaching …"):
        if query is not None:
            path = postmortem.attach_query(folder, query, name or "query")
        elif file is not None:
            path = postmortem.attach_file(folder, file)
        else:
            path = postmortem.attach_recording(folder, here.open(run or ""))
    here.out.line("attached ", bold(path))
    here.out.next_steps(f"postmortem verify {word(folder)}")
    if here.out.as_json:
        here.out.document({"postmortem": str(folder), "attached": path})
    return 0


def verify(context: typer.Context, folder: Folder, as_json: AsJson = False) -> int:
    """Check a postmortem's evidence again: hashes, verdicts, queries, replays, and what the page says of them.

    \b
      fencepost postmortem verify postmortems/007-double-charge

    Exit code 0: everything stands. 1: something does not, and the lines say what. 2: this is no usable postmortem.
    """
    from fencepost_analyzer import postmortem

    out = session(context, None, as_json).out
    with out.working("judging and replaying again …"):
        checks = postmortem.verify(folder)
    stands = all(one.stands for one in checks)
    version = postmortem.written_by(folder)
    if out.as_json:
        about = {"postmortem": str(folder), "written_by": version, "stands": stands}
        out.document({**about, "checks": [one.to_dict() for one in checks]})
    else:
        print_checks(out, folder, checks)
        if version != __version__:
            out.line(dim(f"written by fencepost {version}, verified by {__version__}"))
        blanks = postmortem.blanks(folder)
        if blanks:
            out.line(dim(f"{text.counted(blanks, 'part')} of the page still to fill in"))
    return 0 if stands else 1


def print_checks(out: Output, folder: Path, checks: list[Check]) -> None:
    """The result, then each check; files and sections that stand are counted, not listed."""
    fallen = [one for one in checks if not one.stands]
    answer = Styled("stands", "green", "✓ ") if not fallen else Styled("does not stand", "bold red", "✗ ")
    out.line(bold(folder), ": ", answer)
    for one in fallen:
        out.item(out_mark(out, stands=False), one.name, ": ", Styled(one.detail, "red"), indent=2)
    for kind in ("file", "section"):
        count = sum(one.stands for one in checks if one.name.startswith(f"{kind} "))
        out.item(out_mark(out, stands=True), f"{text.counted(count, kind)} unchanged", indent=2)
    for one in checks:
        if one.stands and not one.name.startswith(("file ", "section ")):
            out.item(out_mark(out, stands=True), one.name, dim(f": {one.detail}"), indent=2)


def out_mark(out: Output, *, stands: bool) -> str:
    if out.terminal:
        return "✓ " if stands else "✗ "
    return "ok   " if stands else "FAIL "

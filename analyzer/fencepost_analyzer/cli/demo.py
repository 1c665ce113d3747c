"""`demo`: the whole story in a few seconds."""

from __future__ import annotations

import typer

from fencepost_analyzer.cli.options import AsJson, Postmortems, Recordings, session
from fencepost_analyzer.cli.postmortems import POSTMORTEMS


def demo(
    context: typer.Context,
    postmortems: Postmortems = POSTMORTEMS,
    recordings: Recordings = None,
    as_json: AsJson = False,
) -> int:
    """Tell the whole story: real workers are killed and stopped, the proof is found, and the policy that heals it.

    \b
      fencepost demo

    Takes some ten seconds, needs nothing but this machine, and leaves a recording and a postmortem to look at.
    Exit code 0 when everything came as the story says, 1 when something did not.
    """
    from fencepost_analyzer import demo as story

    here = session(context, recordings, as_json)
    return story.tell(here.out, here.recordings, postmortems)

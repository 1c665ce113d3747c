"""The pages that the code writes: `python -m fencepost_analyzer.docs`, in a checkout.

A page is a Markdown file in which generated sections stand between markers; everything else in it is people's. What
is generated is derived from the code, the catalogue and the simulator, so that a page which says otherwise fails a
test instead of misleading a reader.
"""

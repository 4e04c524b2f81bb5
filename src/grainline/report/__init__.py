"""A run on one page: a pure function of its files, without torch.

::

    jsonl, read, measured    a run's folder, and what evaluate wrote into it -> RunFiles, checked
    facts                    RunFiles -> before and after, aspects, cost, origin;  side_by_side: of several runs
    headline, evidence       facts -> one sentence, what speaks for it and against it, what to do next
    series, drawings         files -> curves, clouds and bars;  charts, svg: these -> SVG
    evaluated, pairs, heat   an evaluation's figures in words; its tokens, shaded (shades)
    view, page               all of it as HTML (templates/);  differences: words that only one answer has
    markdown, card           as text, as a model card;  notebook: a few lines for a notebook's cell
"""

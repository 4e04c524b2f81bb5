"""A run on one page: a pure function of its files, without torch.

::

    read        a run's folder -> RunFiles, checked
    facts       RunFiles -> before and after, aspects, cost, origin;  side_by_side: the same of several runs
    headline    facts -> one sentence and what to do next
    series      RunFiles -> curves;  charts: curves -> SVG
    page, markdown, card    all of it as HTML, as text, as a model card
"""

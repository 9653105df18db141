"""Pictures, timelines and the HTML report of a run.

- the report of a run: ``html``, with ``pictures``; comparison of runs: ``compare_runs``, ``comparison``,
  ``comparison_table``; ``cross_validation``
- predictions of videos: ``video_page``, ``page_media``, ``timeline``, ``label_timeline``, ``timeline_axes``,
  ``overlay``
- shared: ``metrics`` by name, ``page`` (HTML), ``style`` of pictures
"""

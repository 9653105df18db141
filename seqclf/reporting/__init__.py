"""Pictures, timelines and the HTML report of a run."""

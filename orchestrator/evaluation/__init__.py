"""Honest scores: only members that did not see a person judge that person; people, not photos, are the sample."""

"""The loop's table of contents: from waiting corrections to a candidate that was judged."""

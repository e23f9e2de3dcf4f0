"""Which version serves: the release record, how it moves, and the registry that hears of it."""

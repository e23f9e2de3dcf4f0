"""The `flywheel` command."""

from serve.cli.stopping import stop_signals_blocked

# numpy starts threads, which keep the mask of this moment, and StopSignals needs its signals blocked in all of them.
with stop_signals_blocked():
    import numpy  # noqa: F401

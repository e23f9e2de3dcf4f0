"""HTTP to prediction: the gateway of each task, the control application, and the `flywheel` command."""

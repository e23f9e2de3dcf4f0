"""HTTP: the gateway of a task, the control application, and what both say."""

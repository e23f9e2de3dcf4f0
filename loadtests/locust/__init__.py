"""Load tests with Locust: a day of each kind of user. docs/load.md describes them; the command is `run.py`."""

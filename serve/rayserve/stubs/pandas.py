"""Shadows pandas on the path of the server's processes: see docs/decisions/0014-training-beside-serving.md."""

raise ModuleNotFoundError("pandas is left out of serving processes", name=__name__)

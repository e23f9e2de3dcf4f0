"""One file a task; `models.task.all_tasks` finds them."""

"""One file a task; `models.tasks.base.all_tasks` discovers them."""

"""Run by Alembic. The connection and its transaction are the caller's, who holds the lock that lets one migrate."""

from alembic import context

from models.feedback.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by making it anew
    transactional_ddl=False,  # no commit between revisions: all or none
)
context.run_migrations()

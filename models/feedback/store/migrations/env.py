"""Run by Alembic, on the connection and in the transaction of the caller, who holds the migration lock."""

from alembic import context

from models.feedback.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
    transactional_ddl=False,  # no commit between revisions: all or none
)
context.run_migrations()

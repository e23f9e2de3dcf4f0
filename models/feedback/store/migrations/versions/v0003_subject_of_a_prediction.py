"""Whose data a prediction is, where the request named another user than the one who asked.

Of rankings in the log, the user in the request is under "user" in `input`, hashed.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_NAMED = {"sqlite": "json_extract(input, '$.user.id')", "postgresql": "(input::json #>> '{user,id}')"}


def upgrade() -> None:
    op.add_column("predictions", sa.Column("subject", sa.Text))
    some = sa.text("subject IS NOT NULL")
    op.create_index("ix_predictions_subject", "predictions", ["subject"], sqlite_where=some, postgresql_where=some)
    named = _NAMED[op.get_context().dialect.name]
    rankings = "\"user\" IS NOT NULL AND input LIKE '{%'"
    op.execute(f'UPDATE predictions SET subject = {named} WHERE {rankings} AND {named} <> "user"')


def downgrade() -> None:
    op.drop_index("ix_predictions_subject", "predictions")
    op.drop_column("predictions", "subject")

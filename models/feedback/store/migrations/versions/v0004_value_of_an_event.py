"""The value of an event on an item: of a rating, or the seconds of a dwell."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("feedback", sa.Column("value", sa.Double))


def downgrade() -> None:
    op.drop_column("feedback", "value")

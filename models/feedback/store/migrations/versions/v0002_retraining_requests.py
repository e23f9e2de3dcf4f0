"""Requests for a retraining; who and why of an audit entry are its actor and its reason."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_Serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.alter_column("audit_log", "who", new_column_name="actor")
    op.alter_column("audit_log", "why", new_column_name="reason")
    op.create_table(
        "retraining_requests",
        sa.Column("id", _Serial, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("requested_at", _Moment, nullable=False),
        sa.Column("started_at", _Moment),
        sa.Column("ended_at", _Moment),
        sa.Column("outcome", sa.Text),
        sa.Column("sentence", sa.Text),
        sa.Column("version", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_retraining_requests"),
    )
    op.create_index("ix_retraining_requests_task", "retraining_requests", ["task", "state", "id"])


def downgrade() -> None:
    op.drop_table("retraining_requests")
    op.alter_column("audit_log", "reason", new_column_name="why")
    op.alter_column("audit_log", "actor", new_column_name="who")

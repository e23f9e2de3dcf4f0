"""Prediction log, feedback, what each version was trained on, erased users, locks, audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_Serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "predictions",
        sa.Column("serial", _Serial, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("input", sa.Text, nullable=False),
        sa.Column("output", sa.Text, nullable=False),
        sa.Column("at", _Moment, nullable=False),
        sa.Column("topic", sa.Text),
        sa.Column("user", sa.Text),
        sa.PrimaryKeyConstraint("serial", name="pk_predictions"),
        sa.UniqueConstraint("task", "id", name="uq_predictions_task"),
    )
    op.create_index("ix_predictions_newest", "predictions", ["task", "at"])
    op.create_index("ix_predictions_at", "predictions", ["at"])
    _index_where("ix_predictions_user", "predictions", ["user"], '"user" IS NOT NULL')

    op.create_table(
        "feedback",
        sa.Column("id", _Serial, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("at", _Moment, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("text", sa.Text),
        sa.Column("label", sa.Text),
        sa.Column("user", sa.Text),
        sa.Column("subject", sa.Text),
        sa.Column("prediction_id", sa.Text),
        sa.Column("item_id", sa.Text),
        sa.Column("event", sa.Text),
        sa.Column("version", sa.Text),
        sa.Column("predicted", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("owner", sa.Text),
        sa.Column("leased_until", _Moment),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
        sa.UniqueConstraint("key", name="uq_feedback_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_feedback_queue", "feedback", ["task", "state", "at"])
    op.create_index("ix_feedback_newest", "feedback", ["task", "at"])
    _index_where("ix_feedback_user", "feedback", ["user"], '"user" IS NOT NULL')
    _index_where("ix_feedback_subject", "feedback", ["subject"], "subject IS NOT NULL")
    _index_where("ix_feedback_owner", "feedback", ["owner"], "owner IS NOT NULL")
    _index_where("ix_feedback_item", "feedback", ["task", "prediction_id"], "item_id IS NOT NULL")

    op.create_table(
        "trained",
        sa.Column("feedback_id", _Serial, autoincrement=False, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("feedback_id", "version", name="pk_trained"),
    )
    op.create_table(
        "erased",
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("at", _Moment, nullable=False),
        sa.PrimaryKeyConstraint("user", name="pk_erased"),
    )
    op.create_table(
        "locks",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("until", _Moment, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_locks"),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", _Serial, nullable=False),
        sa.Column("at", _Moment, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("version", sa.Text),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )
    op.create_index("ix_audit_log_task", "audit_log", ["task", "id"])


def downgrade() -> None:
    for table in ("audit_log", "locks", "erased", "trained", "feedback", "predictions"):
        op.drop_table(table)


def _index_where(name: str, table: str, columns: list[str], condition: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(condition), postgresql_where=sa.text(condition))

"""Opinion monitoring: documents, their stories, counts by topic and time, and alerts."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_Serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_Moment = sa.DateTime(timezone=True)
_COUNTS = ("texts", "positive", "neutral", "negative", "stories", "story_positive", "story_negative")


def upgrade() -> None:
    op.create_table(
        "opinion_inbox",
        sa.Column("serial", _Serial, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("at", _Moment, nullable=False),
        sa.Column("prediction_id", sa.Text, nullable=False),
        sa.Column("user", sa.Text),
        sa.PrimaryKeyConstraint("serial", name="pk_opinion_inbox"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_opinion_inbox_task", "opinion_inbox", ["task", "serial"])
    _create_documents()
    _create_stories()
    op.create_table(
        "opinion_counts",
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("step_s", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("start", sa.BigInteger, nullable=False, autoincrement=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in _COUNTS),
        sa.PrimaryKeyConstraint("task", "topic", "step_s", "start", name="pk_opinion_counts"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "opinion_changes",
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("serial", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("task", "topic", name="pk_opinion_changes"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "opinion_alerts",
        sa.Column("id", _Serial, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("started", _Moment, nullable=False),
        sa.Column("ended", _Moment),
        sa.Column("observed", sa.Double, nullable=False),
        sa.Column("expected", sa.Double, nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("examples", sa.Text, nullable=False),
        sa.Column("notified", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_opinion_alerts"),
        sa.UniqueConstraint("task", "topic", "kind", "started", name="uq_opinion_alerts_task"),
    )
    op.create_index("ix_opinion_alerts_started", "opinion_alerts", ["task", "started"])


def _create_documents() -> None:
    op.create_table(
        "opinion_documents",
        sa.Column("serial", _Serial, nullable=False, autoincrement=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("document_id", sa.Text, nullable=False),
        sa.Column("story", sa.BigInteger, nullable=False),
        sa.Column("published", _Moment, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("topics", sa.Text, nullable=False),
        sa.Column("prediction_id", sa.Text, nullable=False),
        sa.Column("at", _Moment, nullable=False),
        sa.Column("user", sa.Text),
        sa.PrimaryKeyConstraint("serial", name="pk_opinion_documents"),
        sa.UniqueConstraint("task", "key", name="uq_opinion_documents_task"),
    )
    op.create_index("ix_opinion_documents_published", "opinion_documents", ["task", "published"])
    op.create_index("ix_opinion_documents_prediction", "opinion_documents", ["task", "prediction_id"])
    op.create_index("ix_opinion_documents_at", "opinion_documents", ["at"])
    some = sa.text('"user" IS NOT NULL')
    op.create_index(
        "ix_opinion_documents_user", "opinion_documents", ["user"], sqlite_where=some, postgresql_where=some
    )


def _create_stories() -> None:
    op.create_table(
        "opinion_stories",
        sa.Column("id", _Serial, nullable=False, autoincrement=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("first", sa.BigInteger, nullable=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.Column("words", sa.LargeBinary, nullable=False),
        sa.Column("topics", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_opinion_stories"),
    )
    op.create_index("ix_opinion_stories_first", "opinion_stories", ["first"])
    op.create_table(
        "opinion_bands",
        sa.Column("bucket", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("band", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("story", sa.BigInteger, nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("bucket", "band", "story", name="pk_opinion_bands"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    for table in ("alerts", "changes", "counts", "bands", "stories", "documents", "inbox"):
        op.drop_table(f"opinion_{table}")

"""The knowledge base: entries, and the number of changes of them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_Serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "knowledge_entries",
        sa.Column("serial", _Serial, nullable=False, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("language", sa.Text),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("vector", sa.LargeBinary),
        sa.Column("encoder", sa.Text),
        sa.PrimaryKeyConstraint("serial", name="pk_knowledge_entries"),
        sa.UniqueConstraint("id", name="uq_knowledge_entries_id"),
    )
    made = op.create_table(
        "knowledge_revision",
        sa.Column("key", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_knowledge_revision"),
    )
    op.bulk_insert(made, [{"key": 1, "revision": 0}])


def downgrade() -> None:
    op.drop_table("knowledge_revision")
    op.drop_table("knowledge_entries")

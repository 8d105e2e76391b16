"""Migrations add, so that programs of the version before work on while others are deployed.

`CONTRIBUTING.md` has the rule. It holds from the first migration that says which programs work with
its tables: those before were made for programs that refuse every later version.
"""

import ast
from pathlib import Path

import pytest

from serve_app.database import migrate

FOLDER = Path(migrate.__file__).parent / "migrations" / "versions"
FIRST = "0006"
FILES = [file for file in sorted(FOLDER.glob("0*.py")) if file.stem[:4] >= FIRST]
# `execute` and `bulk_insert` fill what was added; everything else takes away or forbids.
ADDING = {"create_table", "create_index", "add_column", "bulk_insert", "execute"}
TAKING = ("DROP", "DELETE", "ALTER", "TRUNCATE", "RENAME")


def calls(node, of):
    found = (one for one in ast.walk(node) if isinstance(one, ast.Call))
    return [
        call
        for call in found
        if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == of
    ]


def upgrading(tree):
    """Everything but `downgrade`: an upgrade may have helpers."""
    return [
        node
        for node in tree.body
        if not (isinstance(node, ast.FunctionDef) and node.name == "downgrade")
    ]


def objections(source):
    """What in a migration would disturb a program that does not know it."""
    nodes = upgrading(ast.parse(source))
    found = []
    made = {
        ast.literal_eval(call.args[0])
        for node in nodes
        for call in calls(node, "op")
        if call.func.attr == "create_table"
    }
    for call in (call for node in nodes for call in calls(node, "op")):
        name = call.func.attr
        words = {word.arg: ast.unparse(word.value) for word in call.keywords}
        if name not in ADDING:
            found.append(f"{name} takes something away")
        if name == "add_column":
            column = {word.arg: ast.unparse(word.value) for word in call.args[1].keywords}
            if column.get("nullable") != "True" and "server_default" not in column:
                found.append("a new column must be nullable or have a server_default")
        is_unique = name == "create_index" and words.get("unique") == "True"
        if is_unique and ast.literal_eval(call.args[1]) not in made:
            found.append("a unique index forbids what other programs may write")
        if name == "execute" and any(word in ast.unparse(call).upper() for word in TAKING):
            found.append("execute takes something away")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_migration_adds_only(file):
    assert objections(file.read_text()) == []


@pytest.mark.parametrize(
    ("line", "objection"),
    [
        ("op.drop_column('jobs', 'number')", "takes something away"),
        ("op.alter_column('jobs', 'number')", "takes something away"),
        ("op.rename_table('jobs', 'work')", "takes something away"),
        ("op.add_column('jobs', sa.Column('a', sa.Text(), nullable=False))", "must be nullable"),
        ("op.add_column('jobs', sa.Column('a', sa.Text()))", "must be nullable"),
        ("op.create_index('ix', 'jobs', ['a'], unique=True)", "forbids"),
        ("op.execute('DELETE FROM jobs')", "takes something away"),
    ],
)
def test_what_disturbs_other_programs_is_seen(line, objection):
    (found,) = objections(f"def upgrade():\n    {line}\n")
    assert objection in found


def test_what_adds_is_allowed_and_a_downgrade_may_take_away():
    source = """
def upgrade():
    op.create_table('t', sa.Column('a', sa.Text(), nullable=False))
    op.create_index('ix', 't', ['a'], unique=True)
    op.add_column('jobs', sa.Column('b', sa.Integer(), nullable=False, server_default='0'))
    op.execute('UPDATE jobs SET b = 1')
def downgrade():
    op.drop_table('t')
"""
    assert objections(source) == []


def test_each_migration_says_from_which_program_on_its_tables_work():
    known = [file.stem[:4] for file in FILES]
    oldest = []
    for file in FILES:
        values = {
            node.target.id: ast.literal_eval(node.value)
            for node in ast.parse(file.read_text()).body
            if isinstance(node, ast.AnnAssign)
        }
        assert values["revision"] == file.stem[:4]
        assert values["works_from"] in known
        assert values["works_from"] <= values["revision"]
        oldest.append(values["works_from"])
    assert oldest == sorted(oldest)
    assert oldest[0] == FIRST

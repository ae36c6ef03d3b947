"""Load the SQL files of a test install, with the schema's name put in."""

from pathlib import Path

from pgflow.database.files import QUALIFIER, SCHEMA

__all__ = ["load"]

FOLDER = Path(__file__).parent / "sql"


def load(name: str, schema: str = SCHEMA) -> str:
    """Return the text of a file, with every qualifier `pgflow.` replaced by that of `schema`."""
    return QUALIFIER.sub(f'"{schema}".', (FOLDER / f"{name}.sql").read_text(encoding="utf-8"))

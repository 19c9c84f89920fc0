"""PostgreSQL's extension ``vector``, where a database has it: it compares the notes without reading them here.

The column that it works on is made by the database itself out of the stored vectors, so that it holds every note,
whatever process of whatever release has kept it, and can be dropped at any time. It is no part of the schema: which
database has it is up to whoever runs the server.
"""

from __future__ import annotations

from array import array
from typing import Any, cast

from sqlalchemy import Connection, Row, text

MAX_DIMENSIONS = 16_000
"""The extension's own limit."""

_EXTENSION = text("""
    SELECT quote_ident(s.nspname) FROM pg_extension e JOIN pg_namespace s ON s.oid = e.extnamespace
    WHERE e.extname = 'vector'
""")
_COLUMN = text("""
    SELECT quote_ident(s.nspname) FROM pg_attribute a
    JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace s ON s.oid = t.typnamespace
    WHERE a.attrelid = to_regclass('note') AND a.attname = 'embedding' AND NOT a.attisdropped
""")

# A 32-bit float out of its four bytes, the lowest one first: PostgreSQL has no function for that.
_FUNCTION = """
    CREATE OR REPLACE FUNCTION opspawn_vector(stored bytea) RETURNS {schema}.vector
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (
        SELECT CAST(CAST(array_agg(
            CASE WHEN exponent = 0 THEN sign * fraction * power(CAST(2 AS float8), -149)
                 ELSE sign * (1 + fraction / CAST(8388608 AS float8)) * power(CAST(2 AS float8), exponent - 127) END
            ORDER BY place) AS real[]) AS {schema}.vector)
        FROM (
            SELECT place,
                1 - 2 * (get_byte(stored, 4 * place + 3) >> 7) AS sign,
                ((get_byte(stored, 4 * place + 3) & 127) << 1) | (get_byte(stored, 4 * place + 2) >> 7) AS exponent,
                ((get_byte(stored, 4 * place + 2) & 127) << 16) | (get_byte(stored, 4 * place + 1) << 8)
                    | get_byte(stored, 4 * place) AS fraction
            FROM generate_series(0, octet_length(stored) / 4 - 1) AS place
        ) AS pieces
    )
"""

# What is compared stands in the row; the vectors that it is made of are read by nobody then, and stand aside.
_TABLE = """
    ALTER TABLE note
        ADD COLUMN embedding {schema}.vector GENERATED ALWAYS AS (
            CASE WHEN octet_length(vector) BETWEEN 4 AND {most} THEN opspawn_vector(vector) END) STORED,
        ALTER COLUMN embedding SET STORAGE MAIN,
        ALTER COLUMN vector SET STORAGE EXTERNAL
"""

# The stored vectors have the length 1, so the product is the cosine; and a vector of zeros has one, too.
_NEAREST = """
    SELECT id, text, source, at, -(embedding OPERATOR({schema}.<#>) CAST(:query AS {schema}.vector)) AS score
    FROM note
    WHERE tenant = :tenant AND agent = :agent AND key = :key AND embedder = :embedder
        AND {schema}.vector_dims(embedding) = :dimensions
    ORDER BY embedding OPERATOR({schema}.<#>) CAST(:query AS {schema}.vector)
    LIMIT :limit
"""


def adopt(connection: Connection) -> bool:
    """Have the extension compare the notes, where the database has it and it does not yet; whether that was so.

    The table is written anew: about half a second for each 1,000 notes, in which nobody reads or writes notes.
    """
    if connection.dialect.name != "postgresql" or connection.execute(_COLUMN).scalar() is not None:
        return False
    schema = connection.execute(_EXTENSION).scalar()
    if schema is None:
        return False
    connection.execute(text(_FUNCTION.format(schema=schema)))
    connection.execute(text(_TABLE.format(schema=schema, most=4 * MAX_DIMENSIONS)))
    return True


def home(connection: Connection) -> str | None:
    """The schema in which the extension is that compares this database's notes; ``None`` where none does."""
    if connection.dialect.name != "postgresql":
        return None
    return cast("str | None", connection.execute(_COLUMN).scalar())


def nearest_rows(
    connection: Connection, schema: str, query: array[float], limit: int, scope: dict[str, str]
) -> list[Row[Any]]:
    """The notes that are most similar with their scores, the most similar one first; exact, every one is looked at.

    Args:
        connection: of a database for which :func:`home` has answered ``schema``.
        schema: as above.
        query: of length 1, or zeros.
        limit: so many at most.
        scope: tenant, agent, key and embedder.
    """
    given = {**scope, "query": f"[{','.join(map(repr, query))}]", "dimensions": len(query), "limit": limit}
    return list(connection.execute(text(_NEAREST.format(schema=schema)), given))

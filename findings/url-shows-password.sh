#!/usr/bin/env bash
# SQLAlchemy 2.1.9 (PyPI): render_as_string() of a URL whose password is in its query.
#
# libpq's URIs may have every parameter in the query, user and password included (PostgreSQL's documentation, 34.1.1.2),
# and both psycopg and SQLAlchemy connect by such a URL.
# Expected: hide_password=True, which is also how a URL, an engine and its repr() are shown, hides it.
# Seen: only what stands before the host is hidden; `?password=` and `?sslpassword=` are told as they are.
# For a lab: a fleet's address is shown without what its query says of passwords, by code of its own.
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages sqlalchemy==2.1.9 'psycopg[binary]==3.3.9'

"$python" - >"$work/seen" <<'EOF'
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine, make_url

for text in (
    "postgresql+psycopg://lab:secret@127.0.0.1/lab",
    "postgresql+psycopg://127.0.0.1/lab?user=lab&password=secret",
    "postgresql+psycopg://127.0.0.1/lab?sslkey=k&sslpassword=secret",
):
    url = make_url(text)
    engine = create_engine(url)
    print("shown ", url.render_as_string(hide_password=True))
    print("repr  ", repr(engine))
    print("taken ", sorted(conninfo_to_dict(text.replace("+psycopg", ""))))
EOF

as_recorded <<'EOF'
shown  postgresql+psycopg://lab:***@127.0.0.1/lab
repr   Engine(postgresql+psycopg://lab:***@127.0.0.1/lab)
taken  ['dbname', 'host', 'password', 'user']
shown  postgresql+psycopg://127.0.0.1/lab?password=secret&user=lab
repr   Engine(postgresql+psycopg://127.0.0.1/lab?password=secret&user=lab)
taken  ['dbname', 'host', 'password', 'user']
shown  postgresql+psycopg://127.0.0.1/lab?sslkey=k&sslpassword=secret
repr   Engine(postgresql+psycopg://127.0.0.1/lab?sslkey=k&sslpassword=secret)
taken  ['dbname', 'host', 'sslkey', 'sslpassword']
EOF

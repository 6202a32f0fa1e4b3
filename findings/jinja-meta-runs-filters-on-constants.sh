#!/usr/bin/env bash
# Jinja2 3.1.6: `meta.find_undeclared_variables` calls filters of constant expressions, although nothing is rendered,
# and also in an Environment that was made with `optimized=False`, which says that nothing is computed ahead.
#
# Expected: reading which variables a template has, evaluates none of it.
# Seen: the filter has been called once per parse; the answer (`{'name'}`) is right.
# Matters to whoever lists the variables of a template that a stranger wrote.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check Jinja2==3.1.6 MarkupSafe==3.0.2
"$folder/venv/bin/python" - <<'PY'
import sys
from jinja2 import Environment, meta

for optimized in (True, False):
    calls = []
    environment = Environment(optimized=optimized)
    environment.filters["shout"] = lambda text: calls.append(text) or text.upper()
    tree = environment.parse("{{ 'noon' | shout }} {{ name }}")
    found = meta.find_undeclared_variables(tree)
    print(f"optimized={optimized}: variables {found}, filter called with {calls}")
    if (found, calls) != ({"name"}, ["noon"]):
        sys.exit("the behaviour has changed")
PY

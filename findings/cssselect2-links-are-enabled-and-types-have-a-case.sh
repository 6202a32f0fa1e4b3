#!/usr/bin/env bash
# cssselect2 0.10.1: `:enabled` matches links (`a[href]`), which by the HTML standard are neither enabled nor disabled; and
# `[type=text]` does not match `<input type="TEXT">`, although the standard has values of `type` and some other attributes compared
# without case in HTML (`from_html_root` says that the page is HTML). So rules hold for elements for which no browser applies them.
#
# Expected: `:enabled` only the field, `[type=text]` the field, as Chromium 156 and soupsieve 2.8 (`[type=text]`) have it.
# Seen: the link as well, and nothing. `[type=text i]` matches.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check cssselect2==0.10.1 tinycss2==1.5.1 webencodings==0.5.1 soupsieve==2.8 beautifulsoup4==4.14.2
"$folder/venv/bin/python" - <<'PY'
import sys
from xml.etree import ElementTree

import bs4
import cssselect2

page = '<html><body><input id="field" type="TEXT"/><a id="link" href="#">x</a></body></html>'
root = cssselect2.ElementWrapper.from_html_root(ElementTree.fromstring(page))
selectors = (":enabled", "[type=text]", "[type=text i]")
seen = {selector: [found.id for found in root.query_all(selector)] for selector in selectors}
soup = bs4.BeautifulSoup(page, "html.parser")
right = {selector: [found["id"] for found in soup.select(selector)] for selector in selectors}
print("cssselect2:", seen, "soupsieve:", right, sep="\n")
if seen != {":enabled": ["field", "link"], "[type=text]": [], "[type=text i]": ["field"]}:
    sys.exit("the behaviour has changed")
if right != dict.fromkeys(selectors, ["field"]):
    sys.exit("the behaviour has changed")
PY

"""The functions that a `check` may call: those of the language, by their names.

Others come from plug-ins; whoever evaluates a check gives the mapping of all.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import contents, forms, grounds, languages, measures
from .check import CheckFunction

BUILT_IN: Mapping[str, CheckFunction] = {
    "cites": grounds.cites,
    "contains": contents.contains,
    "differs": contents.differs,
    "grounded": grounds.grounded,
    "is_date": forms.is_date,
    "is_email": forms.is_email,
    "is_url": forms.is_url,
    "lacks": contents.lacks,
    "language": languages.language,
    "matches": forms.matches,
    "one_of": contents.one_of,
    "quotes": grounds.quotes,
    "sentences": measures.sentences,
    "unique": contents.unique,
    "words": measures.words,
}

"""Rules that decisions of people teach, and what they read in a document.

Its names are imported when there is a decision: they bring all that finds values in texts.
"""

from typing import TYPE_CHECKING

from paddock.engine.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from .decision_rules import Rules as Rules
    from .decision_rules import TaughtAnswer as TaughtAnswer
    from .document_offers import Offers as Offers
    from .document_offers import offers_of as offers_of
else:
    __getattr__ = lazy_names(
        __name__,
        {
            **dict.fromkeys(("Rules", "TaughtAnswer"), "decision_rules"),
            **dict.fromkeys(("Offers", "offers_of"), "document_offers"),
        },
    )

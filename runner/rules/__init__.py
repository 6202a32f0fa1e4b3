"""Rules that decisions of people teach, and what they read in a document.

Its names are imported when there is a decision: they bring all that finds values in texts.
"""

from typing import TYPE_CHECKING

from paddock.engine.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from .decision_rules import FieldReading, Rules, TaughtAnswer
    from .document_offers import Offers, offers_of, signed_amounts

__all__ = ["FieldReading", "Offers", "Rules", "TaughtAnswer", "offers_of", "signed_amounts"]
__getattr__ = lazy_names(__name__, {
    "Offers": "document_offers", "offers_of": "document_offers",
    "signed_amounts": "document_offers",
    "FieldReading": "decision_rules", "Rules": "decision_rules", "TaughtAnswer": "decision_rules",
})  # fmt: skip

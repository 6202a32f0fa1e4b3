"""Rules that decisions of people teach, and what they read in a document.

Its names are imported when there is a decision: they bring all that finds values in texts.
"""

from typing import TYPE_CHECKING

from paddock.engine.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from .cell_values import signed_amounts
    from .decision_rules import Rules
    from .document_offers import offers_of
    from .field_rules import TaughtAnswer
    from .offers import Offers
    from .proposals import Proposals
    from .readings import Reading
    from .sender_doubts import KnownPaper, SenderPapers, doubt, tells_kind

__all__ = [
    "KnownPaper", "Offers", "Proposals", "Reading", "Rules", "SenderPapers", "TaughtAnswer",
    "doubt", "offers_of", "signed_amounts", "tells_kind",
]  # fmt: skip
__getattr__ = lazy_names(__name__, {
    "Offers": "offers", "offers_of": "document_offers", "signed_amounts": "cell_values",
    "Reading": "readings", "TaughtAnswer": "field_rules", "Rules": "decision_rules",
    "doubt": "sender_doubts", "KnownPaper": "sender_doubts", "SenderPapers": "sender_doubts",
    "tells_kind": "sender_doubts", "Proposals": "proposals",
})  # fmt: skip

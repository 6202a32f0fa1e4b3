"""Documents that come from elsewhere: their sources, and the folders that these are copied into."""

from typing import TYPE_CHECKING

from paddock.engine.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from .mailbox import open_mailbox as open_mailbox
else:
    __getattr__ = lazy_names(__name__, {"open_mailbox": "mailbox"})

"""Read images from `data:` URIs. Pure; what kind of image it is, the engine looks at.

Pages elsewhere are not fetched: a service that opens addresses for its callers can be led into
the network behind it.
"""

from __future__ import annotations

import base64
import binascii

from .fields import Fields


def picture_of(fields: Fields, name: str) -> bytes:
    """Give the bytes of an image that stands in a field as a `data:` URI.

    Raises:
        InvalidValue: it is an address elsewhere, or no base64.
    """
    address = fields.needed_text(name)
    head, comma, data = address.partition(",")
    if not address.startswith("data:") or not comma:
        raise fields.refused(
            name,
            "image URLs are not fetched; send the image itself as a base64 data: URI "
            "(`data:image/png;base64,…`).",
        )
    if not head.endswith(";base64"):
        raise fields.refused(name, "the data: URI must be base64 (`data:image/png;base64,…`).")
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise fields.refused(name, "the image is not valid base64.") from None

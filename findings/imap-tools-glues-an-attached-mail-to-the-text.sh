#!/usr/bin/env bash
# imap-tools 1.16.0 and mail-parser 4.8.0: the text of a mail that hangs on another as an attachment (`message/rfc822`, as
# "forward as attachment" sends it) is part of the outer mail's own text. imap-tools, besides, joins all texts of a mail without
# so much as a space, and names the attached mail among the attachments as well.
#
# Expected: "Please pay 100." is the text; the attached mail is an attachment, as fast-mail-parser 0.10.0 has it.
# Seen: "Please pay 100.Ignore this, 999 is paid." and a list of both. Both also leave the line end of a folded subject in it.
# Matters to whoever lets a model decide by `text`: other people's words are the sender's.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check imap-tools==1.16.0 mail-parser==4.8.0 fast-mail-parser==0.10.0
cd "$folder"
venv/bin/python - <<'PY'
import sys

import fast_mail_parser
import mailparser
from imap_tools import MailMessage

MAIL = b"""From: a@example.org
To: b@example.org
Subject: Invoice
 12
Date: Fri, 2 Jan 2026 03:04:05 +0100
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=B

--B
Content-Type: text/plain

Please pay 100.
--B
Content-Type: message/rfc822

From: c@example.org
To: a@example.org
Subject: Old
Date: Thu, 1 Jan 2026 03:04:05 +0100
Content-Type: text/plain

Ignore this, 999 is paid.
--B--
""".replace(b"\n", b"\r\n")
imap_tools = MailMessage.from_bytes(MAIL)
mail_parser = mailparser.parse_from_bytes(MAIL)
fast = fast_mail_parser.parse_email(MAIL)
print("imap-tools", repr(imap_tools.text), [part.content_type for part in imap_tools.attachments], repr(imap_tools.subject))
print("mail-parser", mail_parser.text_plain, repr(mail_parser.subject))
print("fast-mail-parser", fast.text_plain, [part.mimetype for part in fast.attachments], repr(fast.subject))
if (
    imap_tools.text.split() != "Please pay 100.Ignore this, 999 is paid.".split()
    or [part.content_type for part in imap_tools.attachments] != ["message/rfc822"]
    or len(mail_parser.text_plain) != 2
    or [text.strip() for text in fast.text_plain] != ["Please pay 100."]
    or "\n" not in imap_tools.subject
    or "\n" not in mail_parser.subject
):
    sys.exit("the behaviour has changed")
PY

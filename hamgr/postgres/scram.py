"""Does a stored SCRAM verifier belong to a password? Nothing of the password leaves this process."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import unicodedata

VERIFIER = re.compile(r"SCRAM-SHA-256\$(\d+):([^$]+)\$([^:]+):(.+)")


def is_verifier_of(verifier: str, password: str) -> bool:
    """True if the server would let this password in. False for an MD5 hash or none: better set anew.

    Some non-ASCII passwords are told False although they fit: of SASLprep only the normalisation is done here.
    Source: RFC 5802, section 3; src/common/scram-common.c, scram_build_secret.
    """
    found = VERIFIER.fullmatch(verifier)
    if not found:
        return False
    salt, stored = base64.b64decode(found[2]), base64.b64decode(found[3])
    prepared = unicodedata.normalize("NFKC", password).encode()
    salted = hashlib.pbkdf2_hmac("sha256", prepared, salt, int(found[1]))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return hmac.compare_digest(hashlib.sha256(client_key).digest(), stored)

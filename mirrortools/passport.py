"""The certificate that all hosts of one delivery show each other: made for it, kept in memory, gone with it.

Whoever shows it was told of it by the origin over ssh. It lets nobody publish anything: what travels is proved by its
hash and by what the origin signed. Only the standard library is used here, because the receiver runs this module on
edges.
"""

from __future__ import annotations

import os
import ssl
import subprocess
from typing import Final

from mirrortools.errors import EdgeError

_OPENSSL: Final = (
    *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
    *("-days", "1", "-subj", "/CN=mirrortools delivery", "-keyout", "-", "-out", "-"),
)
_CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----"
# X509_V_FLAG_NO_CHECK_TIME: clocks of edges differ, and the certificate lives no longer than those who hold it.
_NO_CHECK_TIME: Final = 0x200000
_TIMEOUT_S: Final = 30


def new_passport() -> str:
    """A new key and its certificate, as PEM. Raises EdgeError when openssl is missing or fails."""
    try:
        done = subprocess.run(_OPENSSL, capture_output=True, check=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise EdgeError("openssl is not installed on this host; install it and run again") from error
    except subprocess.SubprocessError as error:
        raise EdgeError(f"openssl made no certificate for the delivery: {error}; run `openssl version`") from error
    return done.stdout.decode()


def accepting(passport: str) -> ssl.SSLContext:
    """For who is called. Raises ssl.SSLError when it is no passport."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # nobody comes back with a ticket
    return _only(context, passport)


def calling(passport: str) -> ssl.SSLContext:
    """For who calls. Raises ssl.SSLError when it is no passport."""
    return _only(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), passport)


def _only(context: ssl.SSLContext, passport: str) -> ssl.SSLContext:
    """Show this certificate, and take no other."""
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= _NO_CHECK_TIME
    context.load_verify_locations(cadata=passport[passport.find(_CERTIFICATE) :])
    file = os.memfd_create("passport")
    try:
        os.write(file, passport.encode())
        context.load_cert_chain(f"/proc/self/fd/{file}")
    finally:
        os.close(file)
    return context

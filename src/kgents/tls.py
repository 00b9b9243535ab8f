"""Whom we trust when we connect by TLS."""

from __future__ import annotations

import os
import ssl

from kgents.errors import Unprocessable


def trusted() -> ssl.SSLContext:
    """The authorities in the file that SSL_CERT_FILE names, or in the folder that SSL_CERT_DIR names, or else the
    system's. Raises Unprocessable where these can't be read.
    """
    import httpx2

    try:
        return httpx2.create_ssl_context()
    except OSError as error:
        named = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
        raise Unprocessable(
            f"{os.environ.get(named)}, which {named} names, holds no certificates that can be read "
            f"({error.strerror or error}).",
            code="setting",
        ) from None


def nobody() -> ssl.SSLContext:
    """For an address without TLS, and its client: to read the authorities takes longer than most requests."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

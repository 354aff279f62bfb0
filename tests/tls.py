"""An authority for certificates, and the contexts of those who trust it and of those who are certified by it."""

from __future__ import annotations

import datetime
import ssl
from functools import cache

import trustme

NAME = "dns.example"
OURS = "the lab"


@cache
def authority(name: str) -> trustme.CA:
    return trustme.CA(organization_name=name)


def trusting(name: str = OURS) -> ssl.SSLContext:
    """A client's context that trusts this authority and no other."""
    context = ssl.create_default_context(cadata=authority(name).cert_pem.bytes().decode())
    assert context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED
    return context


@cache
def certified(alpn: tuple[str, ...] = (), name: str = NAME, ended: bool = False) -> ssl.SSLContext:
    """A server's context. ended: its certificate was good until yesterday."""
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    last_month = yesterday - datetime.timedelta(days=30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if ended:
        certificate = authority(OURS).issue_cert(name, not_before=last_month, not_after=yesterday)
    else:
        certificate = authority(OURS).issue_cert(name)
    certificate.configure_cert(context)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context

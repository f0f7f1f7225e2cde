"""The way to a server: the proxy and the certificates that the environment names."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from bfpo.errors import BfpoError

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_ENVIRONMENT = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", *_CERTIFICATES)


@dataclass(frozen=True)
class Route:
    """How requests reach a server.

    Attributes:
        proxy: the proxy, with its user and password; None for none.
        tls: the TLS context; True for the default one, which an address without TLS doesn't need.
    """

    proxy: str | None
    tls: ssl.SSLContext | bool


def route_to(url: str) -> Route:
    """The way to an address, as the environment's variables say.

    Raises:
        BfpoError: if the proxy or the certificates that they name can't be used.
    """
    try:
        proxy = _proxy_to(url)
        encrypted = "https" in (urlsplit(url).scheme, urlsplit(proxy or "").scheme)
        return Route(proxy, _tls(*(os.environ.get(name) or None for name in _CERTIFICATES)) if encrypted else True)
    except (ValueError, OSError) as error:
        named = [name for name in os.environ if name.upper() in _ENVIRONMENT and os.environ[name]]
        reason = re.sub(r"//[^/@]*@", "//***@", str(error))
        raise BfpoError(
            f"{url}: the proxy or TLS settings in the environment can't be used ({reason}): correct "
            f"or unset {', '.join(sorted(named)) or 'its proxy'}"
        ) from None


def _proxy_to(url: str) -> str | None:
    address, proxies = urlsplit(url), getproxies()
    named = proxies.get(address.scheme) or proxies.get("all")
    if not named or proxy_bypass(address.netloc):
        return None
    proxy = named if "://" in named else f"http://{named}"
    parts = urlsplit(proxy)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError(f"{named} is no proxy for HTTP")
    return proxy


@cache
def _tls(file: str | None, folder: str | None) -> ssl.SSLContext:
    """The TLS context, built once because reading the certificate authorities takes long."""
    return ssl.create_default_context(cafile=file, capath=folder)

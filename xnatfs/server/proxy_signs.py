"""What the headers of answers tell of whatever lies between, without a name of the site.

Used by `observed`. Names of headers, products and cookies are told if they are in the lists below; others may
have the name of an institute or a host in them, and are counted.
Threading: one thread.
"""

from __future__ import annotations

import email.utils
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping

_PRODUCT = re.compile(
    r"(nginx|openresty|apache|apache-coyote|tomcat|jetty|cloudflare|envoy|haproxy|caddy|uvicorn|gunicorn|varnish"
    r"|squid|microsoft-iis|microsoft-httpapi|akamaighost|awselb|bigip|traefik)(?:/[\d.]+)?(?= |$)",
    re.IGNORECASE,
)
_HEADERS = frozenset(
    {
        *("x-cache", "x-cache-hits", "x-cache-status", "x-varnish", "x-served-by", "x-proxy-cache"),
        *("x-powered-by", "x-request-id", "x-correlation-id", "x-forwarded-for", "x-forwarded-host"),
        *("x-forwarded-proto", "x-forwarded-server", "x-real-ip", "x-amz-cf-id", "x-amz-cf-pop"),
        *("x-amzn-trace-id", "x-azure-ref", "x-envoy-upstream-service-time", "x-backend", "x-backend-server"),
        *("x-squid-error", "x-accel-buffering", "x-ua-compatible"),
    }
)
# XNAT itself sends these.
_ITS_OWN = frozenset({"x-content-type-options", "x-frame-options", "x-xss-protection"})
_OWN_COOKIES = frozenset({"JSESSIONID", "SESSION_EXPIRATION_TIME", "SESSION_TIMEOUT_TIME", "guest"})
_OTHER = "another"


class ProxySigns:
    """What was seen.

    Attributes:
        servers: products of the `Server` header, with the number of answers.
        headers: known names of headers of proxies; those of other `X-` headers as "another".
        new_sessions: answers that began a session although the request brought one.
        encoded: answers with a Content-Encoding, which none asked for.
        cookies: other cookies than XNAT's.
    """

    def __init__(self) -> None:
        self.answers = 0
        self.servers: Counter[str] = Counter()
        self.headers: set[str] = set()
        self.other_headers: set[str] = set()
        self.new_sessions = 0
        self.encoded = 0
        self.cookies: set[str] = set()
        self._offsets: list[float] = []

    def note(self, headers: Mapping[str, str], cookies: Iterable[str], *, new: bool) -> None:
        """An answer came; `new`: it began another session."""
        self.answers += 1
        self.new_sessions += new
        self.encoded += headers.get("Content-Encoding", "identity") != "identity"
        self.cookies |= set(cookies) - _OWN_COOKIES
        if server := headers.get("Server", ""):
            known = _PRODUCT.match(server)
            self.servers[known[0] if known else _OTHER] += 1
        for name in map(str.lower, headers):
            if name in ("via", "cf-ray", "age") or name in _HEADERS:
                self.headers.add(name)
            elif name.startswith("x-") and name not in _ITS_OWN:
                self.other_headers.add(name)
        try:
            reported = email.utils.parsedate_to_datetime(headers["Date"]).timestamp()
        except (KeyError, ValueError):
            return
        # The date is that of the second's beginning.
        self._offsets.append(reported + 0.5 - time.time())

    @property
    def clock_offset(self) -> float | None:
        """Seconds by which the server's clock is ahead; None if it does not tell."""
        return statistics.median(self._offsets) if self._offsets else None

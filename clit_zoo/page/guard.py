"""Who may ask: the Host and Origin of a request, the token, and what browsers may do with the answers."""

import hmac
import ipaddress
import json
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

COOKIE = "clit_zoo_token"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
SAFE = ("GET", "HEAD", "OPTIONS")

PREFLIGHT = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD",
    "Access-Control-Allow-Headers": "Accept, Authorization",
    "Access-Control-Max-Age": "86400",
}
"""What other sites' pages may do with /iiif/: ask for info.json as JSON-LD, and send the token."""


class Guard:
    """ASGI middleware that turns away whom the page is not for.

    Without a token the names that a request may call this machine by are few, so that no other site's name
    can be made to lead here (DNS rebinding). What changes something must come from the page itself or from a
    program, not from another site's page.

    Args:
        app: what to guard.
        hosts: names that may stand in Host; any where None, which takes a token.
        token: must come with each request, as ``?token=``, which leaves a cookie, or as a bearer.
    """

    def __init__(self, app: Any, hosts: Sequence[str] | None, token: str | None):
        self.app, self.hosts, self.token = app, hosts, token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        cookie = None
        if refusal := self._why_not(scope["method"], scope["path"], headers, given):
            await _refuse(send, *refusal)
            return
        if _is_preflight(scope["method"], scope["path"]):
            await _answer(send, 204, PREFLIGHT, b"")
            return
        if self.token is not None and given and scope["path"] == "/":
            cookie = f"{COOKIE}={self.token}; Path=/; HttpOnly; SameSite=Strict"

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                extra = {**HEADERS, **({"Set-Cookie": cookie} if cookie else {})}
                pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in extra.items()]
                message["headers"] = [*message["headers"], *pairs]
            await send(message)

        await self.app(scope, receive, sending)

    def _why_not(self, method: str, path: str, headers: dict[str, str], given: str) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            return 421, "this page answers to its own address only"
        if _is_preflight(method, path):  # which browsers send without the token
            return None
        if self.token is not None and not any(
            hmac.compare_digest(self.token.encode(), candidate.encode("utf-8", "replace"))
            for candidate in (given, _bearer(headers), _cookie(headers))
        ):
            return 401, "open the address with its token, as the terminal shows it"
        open_to_all = path.startswith("/iiif/") and method in SAFE
        origin = headers.get("origin")
        foreign = origin is not None and not _is_at(origin, host)
        if not open_to_all and (foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site")):
            # a link that is followed is no page's doing
            if method in SAFE and headers.get("sec-fetch-mode") == "navigate" and not foreign:
                return None
            return 403, "another site's page may not use this one"
        return None


def loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _name(host: str) -> str:
    """Host without its port."""
    name, _, port = host.rpartition(":")
    return (name if name and port.isdecimal() else host).strip("[]").lower()


def _is_at(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc == host
    except ValueError:  # such as http://[
        return False


def _bearer(headers: dict[str, str]) -> str:
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token if kind.lower() == "bearer" else ""


def _cookie(headers: dict[str, str]) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _is_preflight(method: str, path: str) -> bool:
    return method == "OPTIONS" and path.startswith("/iiif/")


async def _refuse(send: Any, status: int, sentence: str) -> None:
    body = json.dumps({"error": sentence}).encode()
    own = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
    await _answer(send, status, own, body)


async def _answer(send: Any, status: int, own: dict[str, str], body: bytes) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in {**own, **HEADERS}.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""uvicorn on a socket of ours: which port, who may ask, and an end without delay."""

import asyncio
import errno
import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import ClitZooError
from .app import create_app
from .guard import loopback
from .page import WORKERS
from .pictures import Models, Pictures

PORT = 8765
"""Where none is asked for; the next free one if it is taken."""

MAX_CONNECTIONS = 256

HEAD_SECONDS = 10.0
"""In which a request's head must have come, from its first byte or from the connection on."""


def serve(
    pictures: Pictures,
    models: Models,
    *,
    host: str,
    port: int | None,
    say: Callable[[str], None],
    browser: bool,
) -> None:
    """Serve the page until SIGINT or SIGTERM.

    Args:
        pictures, models: as ``create_app`` takes them.
        host: address to listen on; from any other than this machine's own, a token is asked for.
        port: to listen on.
        say: tells a person: the page's address when requests can be served, and its end.
        browser: open the page in the person's browser.

    Raises:
        ClitZooError: the address cannot be listened on.
    """
    listening = _listen(host, port)
    number = listening.getsockname()[1]
    token = None if loopback(host) else secrets.token_urlsafe(16)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{number}/" + (f"?token={token}" if token else "")

    def started() -> None:
        say(f"The page is at {address} (Ctrl-C ends it)")
        if browser:
            threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()

    hosts = None if token else ["127.0.0.1", "localhost", "::1", host]
    app = create_app(pictures, models, hosts=hosts, token=token, on_start=started)
    code: Any = 0
    try:
        with listening:
            uvicorn.Server(configured(app)).run([listening])
    except KeyboardInterrupt:  # how a person ends it
        pass
    except SystemExit as stop:  # SIGTERM
        code = stop.code
    say("Stopped.")
    if any(thread.name in WORKERS for thread in threading.enumerate()):
        # in a computation that nothing interrupts: torch would abort while the interpreter ends around it
        sys.stdout.flush()
        os._exit(code)
    if code:
        raise SystemExit(code)


def configured(app: Any) -> uvicorn.Config:
    """How uvicorn runs the page."""
    return uvicorn.Config(
        app,
        access_log=False,
        log_level="critical",
        lifespan="on",
        ws="none",
        http=_Timed,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=0,
        h11_max_incomplete_event_size=1 << 15,
    )


class _Timed(H11Protocol):
    """Hangs up on who does not finish a request's head, before which no token is asked: uvicorn waits on."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE and self._head is not None:
            self._head.cancel()
            self._head = None
        elif self.conn.their_state is h11.IDLE and self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)


def _listen(host: str, port: int | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        try:
            return socket.create_server((host, PORT if port is None else port), family=family)
        except OSError as error:
            if port is not None or error.errno != errno.EADDRINUSE:
                raise
            return socket.create_server((host, 0), family=family)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        place = f"{host} port {PORT if port is None else port}"
        raise ClitZooError(f"cannot listen on {place}: {reason}; take another --port or --host") from error

"""The page's server: pictures by the IIIF Image API, a small JSON API beside it, and the viewer's files."""

import asyncio
import json
import re
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from .. import __version__
from ..errors import ClitZooError, is_out_of_memory
from . import iiif
from .guard import Guard
from .page import Page
from .pictures import Models, Opened, Pictures
from .refusal import Refusal, sentence
from .saves import Wish
from .worker import shared

MAX_UPLOAD = 256 << 20
"""Bytes of an uploaded file."""

MAX_UPLOADING = 4 * MAX_UPLOAD
"""Bytes of all files that are being uploaded, or wait to be read."""

MAX_BODY = 1 << 16
"""Bytes of any other request's body."""

UPLOAD_PAUSE = 30.0
"""Seconds without a byte after which an upload is given up."""

HERE = Path(__file__).parent
EXAMPLE = HERE / "viewer" / "astronaut.webp"
OPENAPI = HERE / "openapi.json"


def create_app(
    pictures: Pictures,
    models: Models,
    *,
    hosts: Sequence[str] | None,
    token: str | None = None,
    on_start: Callable[[], None] = lambda: None,
) -> Starlette:
    """The application.

    Args:
        pictures: those open from the start; more may be uploaded.
        models: to show them in.
        hosts, token: as ``Guard`` takes them.
        on_start: called when requests can be served.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with TemporaryDirectory(prefix="clit-zoo-", ignore_cleanup_errors=True) as folder:
            app.state.page = Page(pictures, models, Path(folder))
            on_start()
            try:
                yield
            finally:
                app.state.page.stop()

    routes = [
        Route("/iiif/{model}/{identifier}", _base),
        Route("/iiif/{model}/{identifier}/info.json", _info),
        Route("/iiif/{model}/{identifier}/{region}/{size}/{rotation}/{file}", _image),
        Route("/api/openapi.json", _openapi),
        Route("/api/models", _models),
        Route("/api/status", _status),
        Route("/api/pictures", _list),
        Route("/api/pictures", _upload, methods=["POST"]),
        Route("/api/example", _example, methods=["POST"]),
        Route("/api/pictures/{id}", _picture),
        Route("/api/pictures/{id}", _close, methods=["DELETE"]),
        Route("/api/pictures/{id}/encode", _encode, methods=["POST"]),
        Route("/api/pictures/{id}/attention", _attention),
        Route("/api/pictures/{id}/saves", _save, methods=["POST"]),
        Route("/api/saves", _saves),
        Route("/api/saves/{id}", _save_status),
        Route("/api/saves/{id}", _cancel, methods=["DELETE"]),
        Route("/api/saves/{id}/file", _file),
        Mount("/", StaticFiles(directory=HERE / "viewer", html=True)),
    ]
    handlers: dict[Any, Any] = {ClitZooError: _refused, HTTPException: _http_error, Exception: _failed}
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers=handlers,
        middleware=[Middleware(Guard, hosts=hosts, token=token)],
    )
    app.router.redirect_slashes = False
    return app


def _page(request: Request) -> Page:
    page: Page = request.app.state.page
    return page


# IIIF -----------------------------------------------------------------------------------------------------

OPEN_TO_ALL = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}


async def _base(request: Request) -> Response:
    return RedirectResponse(f"{request.url.path}/info.json", 303, OPEN_TO_ALL)


async def _info(request: Request) -> Response:
    opened, scale, _ = _asked(request)
    address = f"{request.url.scheme}://{request.headers.get('host', '')}{_raw_path(request)}"
    kind = "application/json"
    if "application/ld+json" in request.headers.get("accept", ""):
        kind = f'application/ld+json;profile="{iiif.CONTEXT}"'
    body = iiif.info(address.removesuffix("/info.json"), iiif.canvas_size(opened.size, scale))
    headers = {**OPEN_TO_ALL, "Link": iiif.PROFILE_LINK, "Vary": "Accept"}
    return Response(json.dumps(body), 200, headers, kind)


async def _image(request: Request) -> Response:
    opened, scale, model = _asked(request)
    parts = [request.path_params[part] for part in ("region", "size", "rotation", "file")]
    ask = iiif.parse(parts, iiif.canvas_size(opened.size, scale), scale)
    data = await _while_connected(request, _page(request).pixels(_asker(request), opened, model, scale, ask))
    headers = {**OPEN_TO_ALL, "Link": iiif.PROFILE_LINK, "Cache-Control": "private, max-age=3600"}
    return Response(data, 200, headers, iiif.FORMATS[ask.format])


def _asked(request: Request) -> tuple[Opened, float, str]:
    """The picture, the canvas' scale and the model that an address names."""
    page = _page(request)
    id, scale = iiif.identifier(request.path_params["identifier"])
    page.views.check(request.path_params["model"])
    return page.pictures.get(id), scale, request.path_params["model"]


def _raw_path(request: Request) -> str:
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    return raw.partition(b"?")[0].decode("latin-1")


# JSON -----------------------------------------------------------------------------------------------------


async def _openapi(request: Request) -> Response:
    return FileResponse(OPENAPI, media_type="application/json")


async def _models(request: Request) -> Response:
    return JSONResponse({"models": _page(request).models.described()})


async def _status(request: Request) -> Response:
    page = _page(request)
    return JSONResponse(
        {
            "version": __version__,
            "pictures": len(list(page.pictures)),
            "waiting": sum(len(worker) for worker in page.workers),
            "cached_bytes": page.answers.nbytes,
            "encoded_bytes": page.views.nbytes,
        }
    )


async def _list(request: Request) -> Response:
    page = _page(request)
    return JSONResponse({"pictures": [page.described(opened) for opened in page.pictures]})


async def _upload(request: Request) -> Response:
    name = _file_name(request.query_params.get("name", ""))
    page = _page(request)
    suffix = re.sub(r"[^.a-z0-9]", "", Path(name).suffix.lower())[:8]
    taken = 0
    try:
        # a folder of its own, because readers name the file in their messages
        with TemporaryDirectory(dir=page.folder) as folder:
            path = Path(folder, f"upload{suffix}")
            with path.open("wb") as file:
                async for block in _body(request, MAX_UPLOAD, UPLOAD_PAUSE):
                    if page.uploading + len(block) > MAX_UPLOADING:
                        raise Refusal(503, "too many files are being uploaded; send it again later")
                    taken += len(block)
                    page.uploading += len(block)
                    await asyncio.to_thread(file.write, block)
            return await _open(page, path, name)
    finally:
        page.uploading -= taken


async def _example(request: Request) -> Response:
    return await _open(_page(request), EXAMPLE, "astronaut.webp")


async def _open(page: Page, path: Path, name: str) -> Response:
    opened, closed = await asyncio.wrap_future(page.reading.run("", lambda: page.pictures.add(path, name)))
    for one in closed:
        page.forget(one)
    return JSONResponse({**page.described(opened), "closed": [one.name for one in closed]}, 201)


async def _picture(request: Request) -> Response:
    page = _page(request)
    return JSONResponse(page.described(page.pictures.get(request.path_params["id"])))


async def _close(request: Request) -> Response:
    page = _page(request)
    page.forget(page.pictures.close(request.path_params["id"]))
    return Response(status_code=204)


async def _encode(request: Request) -> Response:
    page = _page(request)
    opened = page.pictures.get(request.path_params["id"])
    page.views.get(opened, request.query_params.get("model", opened.model))
    return JSONResponse(page.described(opened), 202)


async def _attention(request: Request) -> Response:
    page = _page(request)
    opened = page.pictures.get(request.path_params["id"])
    try:
        x, y, scale = (float(request.query_params.get(name, "1")) for name in ("x", "y", "scale"))
    except ValueError:
        raise Refusal(400, "x, y and scale are numbers") from None
    view = await shared(page.views.get(opened, request.query_params.get("model", opened.model)))
    if view is None:
        raise Refusal(400, "bicubic interpolation does not look anywhere: take a LIT or CLIT model")

    def steps() -> Any:
        yield
        return view.attention(x, y, scale)

    client, machine = _asker(request)
    future = page.decoding.submit(client, steps(), machine)
    glances = await _while_connected(request, asyncio.wrap_future(future))
    stages = [{"box": glance.box, "heads": glance.weights.tolist()} for glance in glances]
    return JSONResponse({"x": x, "y": y, "stages": stages})


async def _save(request: Request) -> Response:
    page = _page(request)
    opened = page.pictures.get(request.path_params["id"])
    body = b"".join([block async for block in _body(request, MAX_BODY, UPLOAD_PAUSE)])
    try:
        wish = Wish.of(json.loads(body), opened)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ClitZooError):
            raise
        raise Refusal(400, "the body is no JSON") from None
    return JSONResponse(page.saves.start(opened, wish).described(), 202)


async def _saves(request: Request) -> Response:
    return JSONResponse({"saves": [save.described() for save in _page(request).saves]})


async def _save_status(request: Request) -> Response:
    return JSONResponse(_page(request).saves.get(request.path_params["id"]).described())


async def _cancel(request: Request) -> Response:
    _page(request).saves.remove(request.path_params["id"])
    return Response(status_code=204)


async def _file(request: Request) -> Response:
    save = _page(request).saves.get(request.path_params["id"])
    if save.state != "done":
        raise Refusal(409, "this enlargement is not finished")
    return FileResponse(save.path, filename=save.name)


# what they share ------------------------------------------------------------------------------------------


def _asker(request: Request) -> tuple[str, str]:
    """Who takes turns: a viewer by the name that it gives itself, and its machine."""
    return request.headers.get("x-viewer", "")[:40], request.client.host if request.client else ""


async def _while_connected(request: Request, answer: Awaitable[Any]) -> Any:
    """The answer, unless who asked leaves first: then its work is cancelled."""
    work, gone = asyncio.ensure_future(answer), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise Refusal(499, "the request was cancelled")
        return await work
    finally:
        for task in (work, gone):
            task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request, limit: int, pause: float) -> AsyncIterator[bytes]:
    """A request's body, block by block, within a number of bytes."""
    too_large = Refusal(413, f"more than {limit >> 20 or 1} MB are not taken")
    if int(request.headers.get("content-length", 0)) > limit:
        raise too_large
    read, blocks = 0, request.stream().__aiter__()
    while True:
        try:
            block = await asyncio.wait_for(anext(blocks), pause)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Refusal(408, f"nothing came for {pause:g} seconds") from None
        except ClientDisconnect:
            raise Refusal(499, "the request was cancelled") from None
        read += len(block)
        if read > limit:
            raise too_large
        yield block


def _file_name(text: str) -> str:
    """The last part of a file's name, fit to be shown and to be written."""
    name = re.split(r"[/\\]", text)[-1]
    name = "".join(c for c in name if unicodedata.category(c)[0] != "C").strip(". ")
    return name[-100:] or "picture"


async def _refused(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, Refusal) else 422
    headers = dict(OPEN_TO_ALL) if request.url.path.startswith("/iiif/") else {}
    if status in (408, 413, 503):
        headers["Connection"] = "close"  # the rest of the body is not read
    if status == 503:
        headers["Retry-After"] = "2"
    return JSONResponse({"error": str(error)}, status, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = {**(error.headers or {}), **(OPEN_TO_ALL if request.url.path.startswith("/iiif/") else {})}
    return JSONResponse({"error": error.detail}, error.status_code, headers)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": sentence(error)}, 507 if is_out_of_memory(error) else 500)

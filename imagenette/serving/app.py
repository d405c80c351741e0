"""The service's routes. Pictures go to threads to be decoded, then to the batcher; no request waits here in
another's way."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from html import escape
from importlib.resources import files as resources
from typing import Annotated, Any

from fastapi import FastAPI, File, HTTPException, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from imagenette import __version__
from imagenette.errors import InputError, shown
from imagenette.processes import cores
from imagenette.serving.batcher import Batcher, Busy
from imagenette.serving.limits import BodyGate, Limits, SafeHeaders
from imagenette.serving.metrics import Counting, Metrics
from imagenette.serving.pictures import inspect
from imagenette.serving.predict import top_classes
from imagenette.serving.served import Current, Served


class Problem(BaseModel):
    """Why a request was refused, in one line."""

    detail: str


class Class(BaseModel):
    """A class and its share."""

    model_config = ConfigDict(populate_by_name=True)

    name: Annotated[str, Field(alias="class")]
    """Folder name (WordNet id for Imagenette)."""
    label: str
    """Readable name."""
    share: float
    """Probability in [0, 1]."""


class Prediction(BaseModel):
    """What the model says of one file."""

    file: str
    top: list[Class]
    """Empty where it is no picture."""
    problem: str | None = None
    """Why it could not be read, in one line; the other files of the request have their answers."""


class Which(BaseModel):
    """Which model said so; nulls where it was served from a folder."""

    name: str | None
    version: int | None
    run_id: str | None


class Answers(BaseModel):
    """In the order of the files."""

    model: Which
    predictions: list[Prediction]


class ModelCard(BaseModel):
    """The model that answers."""

    lineage: dict[str, Any] | None
    """As `imagenette lineage --json`; null where it was served from a folder."""
    classes: list[str]
    labels: list[str]
    size: int
    """Pixels per side of what the network sees."""


class State(BaseModel):
    status: str


def _says(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": Problem} for code in codes}


def create_app(served: Served, limits: Limits) -> FastAPI:
    """The application around a served model. Its threads end with its lifespan."""
    batcher = Batcher(
        batch=limits.batch, waiting=limits.waiting, observe=lambda count: metrics.batch.observe(count)
    )
    metrics = Metrics(served, lambda: batcher.waiting)
    decoders = ThreadPoolExecutor(cores(), thread_name_prefix="decode")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        batcher.close()
        decoders.shutdown(cancel_futures=True)

    # The interactive pages that FastAPI offers load scripts from elsewhere: /docs lists the routes instead.
    app = FastAPI(title="imagenette", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(BodyGate, limits=limits)
    app.add_middleware(SafeHeaders)
    app.add_middleware(Counting, metrics=metrics)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse({"detail": f"{where}: {first['msg']}"[:300]}, 422)

    def current() -> Current:
        if served.current is None:
            raise HTTPException(503, "no model yet", {"Retry-After": "5"})
        return served.current

    def check(names: list[str], contents: list[bytes]) -> list[Any]:
        """The pixels of each file, or why it is no picture. Together they may cost what one may."""
        look = _or_problem(functools.partial(inspect, max_pixels=limits.pixels))
        sizes = list(map(look, contents, names))
        pixels = sum(size for size in sizes if not isinstance(size, InputError))
        if len(contents) > 1 and pixels > limits.pixels:
            raise HTTPException(413, f"{pixels:,} pixels; at most {limits.pixels:,} in one request")
        return sizes

    in_hand = 0

    @contextmanager
    def taken(pictures: int) -> Iterator[None]:
        nonlocal in_hand
        if in_hand + pictures > limits.waiting:
            raise Busy
        in_hand += pictures
        try:
            yield
        finally:
            in_hand -= pictures

    async def classify(using: Current, names: list[str], contents: list[bytes]) -> list[Any]:
        """A row of shares for each file, or why it is no picture. Whatever else goes wrong, nothing of it
        goes on."""
        under_way: list[Future[Any]] = []

        async def each(work: Callable[[int, Any], Future[Any]], before: list[Any]) -> list[Any]:
            """What comes of each file; a problem stays."""
            begun = {n: work(n, one) for n, one in enumerate(before) if not isinstance(one, InputError)}
            under_way.extend(begun.values())
            answers = await asyncio.gather(*map(asyncio.wrap_future, begun.values()))
            done = dict(zip(begun, answers, strict=True))
            return [done.get(n, one) for n, one in enumerate(before)]

        prepare = _or_problem(functools.partial(using.model.preprocess, max_pixels=limits.pixels))
        try:
            async with asyncio.timeout(limits.seconds):
                under_way.append(decoders.submit(check, names, contents))
                sizes = await asyncio.wrap_future(under_way[0])
                pictures = await each(lambda n, _: decoders.submit(prepare, contents[n], names[n]), sizes)
                return await each(lambda _, picture: batcher.submit(using.model, picture), pictures)
        finally:
            for future in under_way:
                future.cancel()

    @app.post("/predict", responses=_says(400, 408, 413, 415, 422, 503))
    async def predict(
        files: Annotated[list[UploadFile], File(description="Picture files: JPEG, PNG, BMP or WebP.")],
        top: Annotated[int, Query(ge=1, le=1000, description="Classes to name.")] = 3,
    ) -> Answers:
        """Classify one or several picture files; what is no picture among several is named, alone refused."""
        using = current()
        if len(files) > limits.files:
            raise HTTPException(413, f"{len(files)} files; at most {limits.files} in one request")
        names = [shown(file.filename or "file")[:100] for file in files]
        contents = [await file.read() for file in files]
        try:
            with taken(len(files)):
                rows = await classify(using, names, contents)
        except (Busy, TimeoutError):
            raise HTTPException(503, "too busy: try again in a moment", {"Retry-After": "1"}) from None
        if all(isinstance(row, InputError) for row in rows):
            raise HTTPException(422, str(rows[0]))

        def said(name: str, row: Any) -> Prediction:
            if isinstance(row, InputError):
                return Prediction(file=name, top=[], problem=str(row))
            best = top_classes(using.model, row, top)
            return Prediction(file=name, top=[Class(name=c, label=label, share=s) for c, label, s in best])

        return Answers(model=_which(using), predictions=list(map(said, names, rows)))

    @app.get("/model", responses=_says(503))
    def model() -> ModelCard:
        """The model that answers, and where it comes from."""
        using = current()
        return ModelCard(
            lineage=using.lineage.to_json() if using.lineage else None,
            classes=list(using.model.classes),
            labels=list(using.model.labels),
            size=using.model.size,
        )

    @app.get("/health")
    def health() -> State:
        """The process answers."""
        return State(status="alive")

    @app.get("/ready", responses=_says(503))
    def ready() -> State:
        """A model answers."""
        current()
        return State(status="ready")

    @app.get("/metrics", response_class=Response)
    def figures() -> Response:
        """For Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    _add_page(app)
    _add_docs(app)
    return app


def _or_problem(work: Callable[..., Any]) -> Callable[..., Any]:
    """The same, but an InputError is returned: it stands in the place of a file's answer."""

    def tried(*args: Any) -> Any:
        try:
            return work(*args)
        except InputError as error:
            return error

    return tried


def _which(using: Current) -> Which:
    known = using.lineage
    return Which(
        name=known.name if known else None,
        version=known.version if known else None,
        run_id=known.run_id if known else None,
    )


def _add_page(app: FastAPI) -> None:
    """One page and its two files, from the package: nothing is loaded from elsewhere."""
    folder = resources("imagenette.serving").joinpath("page")

    def add(path: str, name: str, kind: str) -> None:
        content = folder.joinpath(name).read_bytes()
        app.get(path, include_in_schema=False)(lambda: Response(content, media_type=kind))

    page = folder.joinpath("index.html").read_text("utf-8")
    app.get("/", include_in_schema=False)(lambda: HTMLResponse(page))
    add("/page.js", "page.js", "text/javascript")
    add("/page.css", "page.css", "text/css")


def _add_docs(app: FastAPI) -> None:
    """A list of the routes, as /openapi.json has them."""
    rows = [
        f"<li><p><strong>{method.upper()} {escape(path)}</strong><br>{escape(told['description'])}</p></li>"
        for path, methods in app.openapi()["paths"].items()
        for method, told in methods.items()
    ]
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><title>imagenette: routes</title>"
        "<meta name=viewport content='width=device-width'><link rel=icon href='data:,'>"
        f"<link rel=stylesheet href=page.css><main><h1>Routes</h1><ol>{''.join(rows)}</ol>"
        "<footer><a href=openapi.json>openapi.json</a> has their parameters and answers</footer></main>"
    )
    app.get("/docs", include_in_schema=False)(lambda: HTMLResponse(page))

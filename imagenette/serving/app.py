"""The service's routes. Pictures go to threads to be decoded, then to the batcher; no request waits here in
another's way."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
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

    # The interactive pages that FastAPI offers load scripts from elsewhere; /openapi.json is what they show.
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

    def check(names: list[str], contents: list[bytes]) -> None:
        """Together the pictures of a request may cost what one may."""
        look = functools.partial(inspect, max_pixels=limits.pixels)
        pixels = sum(map(look, contents, names))
        if len(contents) > 1 and pixels > limits.pixels:
            raise HTTPException(413, f"{pixels:,} pixels; at most {limits.pixels:,} in one request")

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
        """A row of shares a file. Whatever goes wrong, nothing of it goes on."""
        under_way: list[Future[Any]] = []
        try:
            async with asyncio.timeout(limits.seconds):
                under_way.append(decoders.submit(check, names, contents))
                await asyncio.wrap_future(under_way[0])
                prepare = functools.partial(using.model.preprocess, max_pixels=limits.pixels)
                decoding = [decoders.submit(prepare, *one) for one in zip(contents, names, strict=True)]
                under_way += decoding
                pictures = await asyncio.gather(*map(asyncio.wrap_future, decoding))
                answers = [batcher.submit(using.model, picture) for picture in pictures]
                under_way += answers
                return await asyncio.gather(*map(asyncio.wrap_future, answers))
        finally:
            for future in under_way:
                future.cancel()

    @app.post("/predict", responses=_says(400, 408, 413, 415, 422, 503))
    async def predict(
        files: Annotated[list[UploadFile], File(description="Picture files: JPEG, PNG, BMP or WebP.")],
        top: Annotated[int, Query(ge=1, le=1000, description="Classes to name.")] = 3,
    ) -> Answers:
        """Classify one or several picture files."""
        using = current()
        if len(files) > limits.files:
            raise HTTPException(413, f"{len(files)} files; at most {limits.files} in one request")
        names = [shown(file.filename or "file")[:100] for file in files]
        contents = [await file.read() for file in files]
        try:
            with taken(len(files)):
                rows = await classify(using, names, contents)
        except InputError as error:
            raise HTTPException(422, str(error)) from None
        except (Busy, TimeoutError):
            raise HTTPException(503, "too busy: try again in a moment", {"Retry-After": "1"}) from None
        named = (
            [
                Class(name=c, label=label, share=share)
                for c, label, share in top_classes(using.model, row, top)
            ]
            for row in rows
        )
        predictions = [Prediction(file=name, top=classes) for name, classes in zip(names, named, strict=True)]
        return Answers(model=_which(using), predictions=predictions)

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
    return app


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

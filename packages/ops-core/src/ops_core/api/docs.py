"""Interactive page of the API. It loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, Response
from fastapi_swagger import resources  # type: ignore[import-untyped]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Opspawn API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="api"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""

START = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null});\n'

_FILES: Mapping[str, str] = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
_HEADERS: Mapping[str, str] = {"Content-Security-Policy": POLICY}


def add_docs(app: FastAPI) -> None:
    """Add the page and its files to ``app``; they are not part of the document they show."""
    folder = Path(str(files(resources)))

    async def page() -> Response:
        return HTMLResponse(PAGE, headers=_HEADERS)

    async def start() -> Response:
        return Response(START, media_type="text/javascript")

    def served(name: str, media_type: str) -> None:
        async def file() -> Response:
            headers = {"Cache-Control": "max-age=3600"}
            return FileResponse(folder / name, media_type=media_type, headers=headers)

        app.add_api_route(f"/docs/{name}", file, include_in_schema=False)

    app.add_api_route("/docs", page, include_in_schema=False)
    app.add_api_route("/docs/start.js", start, include_in_schema=False)
    for name, media_type in _FILES.items():
        served(name, media_type)

"""The page at /docs: Swagger UI over the OpenAPI document. Its files are a package's, and nothing comes from elsewhere.

Where that package is not installed, as in Lambda, there is no page. URLs in it are relative, so that it works under any
base path.
"""

from collections.abc import Callable
from html import escape
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

__all__ = ["DOCS_PATHS", "DOCS_URL", "add_docs"]

DOCS_URL = "/docs"
PACKAGE = "fastapi_offline"
"""Whose folder `static` has the FILES."""
FILES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
START = "start.js"
DOCS_PATHS = frozenset({"/", DOCS_URL, *(f"{DOCS_URL}/{name}" for name in (*FILES, START))})
"""The page, what it consists of, and what leads there."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
SCRIPT = """\
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null, // a server of its makers' is sent the document's address otherwise
});
"""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"
    "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""A browser asks no other server for anything, whatever Swagger UI would have it do."""


def add_docs(api: FastAPI) -> None:
    """Add the page, its parts, and the way there from /."""
    page = PAGE.format(title=escape(api.title))
    _add(api, "/", _led_on)
    _add(api, DOCS_URL, lambda _: HTMLResponse(page, headers={"content-security-policy": POLICY}))
    _add(api, f"{DOCS_URL}/{START}", lambda _: Response(SCRIPT, media_type="text/javascript"))
    for name, media_type in FILES.items():
        _add(api, f"{DOCS_URL}/{name}", _file(name, media_type))


def _add(api: FastAPI, path: str, answer: Callable[[Request], Response]) -> None:
    async def endpoint(request: Request) -> Response:
        _folder()
        return answer(request)

    api.add_route(path, endpoint, methods=["GET"], include_in_schema=False)


def _led_on(request: Request) -> Response:
    # A payload 2.0 without a type would be JSON.
    return RedirectResponse(f"{request.scope.get('root_path', '')}{DOCS_URL}", 307, {"content-type": "text/plain"})


def _file(name: str, media_type: str) -> Callable[[Request], Response]:
    return lambda _: FileResponse(_folder() / name, media_type=media_type)


def _folder() -> Path:
    """Where the files are; looked for when somebody asks, so that no function pays for it when it starts.

    Raises:
        HTTPException: 404: they are not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise HTTPException(404, "There is no page here: Swagger UI is not installed. /openapi.json is the document.")
    return Path(spec.origin).parent / "static"

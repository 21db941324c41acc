"""The page at /docs: Swagger UI with the OpenAPI description.

Its files come from an installed package only. Without that package, as in Lambda, there is no page.
Its URLs are relative, so that it works under any base path.
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
"""The package whose folder `static` has the FILES."""
FILES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
START = "start.js"
DOCS_PATHS = frozenset({"/", DOCS_URL, *(f"{DOCS_URL}/{name}" for name in (*FILES, START))})
"""The page, its parts, and / which redirects to it."""

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
  validatorUrl: null, // Swagger UI would send the URL to its makers' server otherwise
});
"""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The browser sends no request to any other server, even if Swagger UI asks for it."""


def add_docs(api: FastAPI) -> None:
    """Add the page, its parts, and the redirect from / to it."""
    page = PAGE.format(title=escape(api.title))
    _add(api, "/", _redirect)
    _add(api, DOCS_URL, lambda _: HTMLResponse(page, headers={"content-security-policy": POLICY}))
    _add(api, f"{DOCS_URL}/{START}", lambda _: Response(SCRIPT, media_type="text/javascript"))
    for name, media_type in FILES.items():
        _add(api, f"{DOCS_URL}/{name}", _file(name, media_type))


def _add(api: FastAPI, path: str, answer: Callable[[Request], Response]) -> None:
    async def endpoint(request: Request) -> Response:
        _folder()
        return answer(request)

    api.add_route(path, endpoint, methods=["GET"], include_in_schema=False)


def _redirect(request: Request) -> Response:
    # API Gateway calls an answer JSON if it has no type (payload 2.0).
    headers = {"content-type": "text/plain"}
    return RedirectResponse(f"{request.scope.get('root_path', '')}{DOCS_URL}", 307, headers)


def _file(name: str, media_type: str) -> Callable[[Request], Response]:
    return lambda _: FileResponse(_folder() / name, media_type=media_type)


def _folder() -> Path:
    """The folder of the files. It is looked for at the first request, not when a function starts.

    Raises:
        HTTPException: 404, because the package is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise HTTPException(404, "docs: Swagger UI is not installed; read /openapi.json instead")
    return Path(spec.origin).parent / "static"

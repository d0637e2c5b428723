"""/v1/files: upload, list, read, delete; every file is hashed, small ones are kept."""

from __future__ import annotations

import re
from urllib.parse import parse_qs

from penstock.proxy.demo.answer import Answer, Blocks, Refused, Whole, json_answer
from penstock.proxy.demo.request import Request
from penstock.proxy.demo.state import Demo, StoredFile

_BINARY = "application/octet-stream"


def upload(request: Request, demo: Demo) -> Answer:
    form = request.form()
    part = form.get("file")
    if part is None:
        raise Refused(400, "'file' is a required property", param="file")
    file = StoredFile(
        id=demo.next_id("file-"),
        size=part.size,
        created_at=demo.now_s(),
        filename=part.filename or "file",
        purpose=form.text("purpose", "user_data"),
        sha256=part.sha256,
        content=part.value if part.is_whole else None,
    )
    demo.keep_file(file)
    return json_answer(_object(file))


def listing(request: Request, demo: Demo) -> Answer:
    purpose = parse_qs(request.head.query).get("purpose", [""])[0]
    files = [file for file in demo.files.values() if purpose in ("", file.purpose)]
    return json_answer(
        {
            "object": "list",
            "data": [_object(file) for file in files],
            "first_id": files[0].id if files else None,
            "last_id": files[-1].id if files else None,
            "has_more": False,
        }
    )


def one(request: Request, demo: Demo) -> Answer:
    return json_answer(_object(_find(request, demo)))


def delete(request: Request, demo: Demo) -> Answer:
    file = _find(request, demo)
    del demo.files[file.id]
    return json_answer({"id": file.id, "object": "file", "deleted": True})


def content(request: Request, demo: Demo) -> Answer:
    """What was uploaded, or under X-Demo-Bytes that many made-up bytes."""
    file = _find(request, demo)
    body: bytes | Blocks | None = file.content
    if request.control.size_bytes is not None:
        body = Blocks(file.sha256.encode(), request.control.size_bytes)
    if body is None:
        raise Refused(404, "Of a file this large only the hash was kept", param="id")
    name = re.sub(r"[^ !#-\[\]-~]", "_", file.filename)
    return Whole(body, content_type=_BINARY, headers=(("Content-Disposition", f'attachment; filename="{name}"'),))


def _find(request: Request, demo: Demo) -> StoredFile:
    name = request.path.removeprefix("/v1/files/").removesuffix("/content")
    file = demo.files.get(name)
    if file is None:
        raise Refused(404, f"No such File object: {name}", param="id")
    return file


def _object(file: StoredFile) -> dict[str, object]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size,
        "created_at": file.created_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "sha256": file.sha256,
    }

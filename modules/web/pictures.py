"""Saved pictures as answers: whole, small, or several in one archive."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from fastapi.responses import FileResponse, Response

from modules.core.errors import NotFound
from modules.core.job import Job
from modules.core.result import SavedImage
from modules.library.images import FORMATS

PICTURE = {"Cache-Control": "private, max-age=31536000, immutable"}
FRESH = {"Cache-Control": "no-store"}
MAX_THUMBNAIL = 1024
THUMBNAIL_QUALITY = 85


def picture_of(job: Job, index: int) -> SavedImage:
    """Return a picture that is in the job's row; raises ``NotFound``."""
    if not 0 <= index < len(job.images):
        raise NotFound(f"The job has no picture {index}.")
    return job.images[index]


def picture_response(path: str, size: int = 0) -> Response:
    """Return a picture's file, or a JPEG of at most ``size`` pixels a side (up to 1024)."""
    file = Path(path)
    if not file.is_file():
        raise NotFound("The picture's file is no longer there.")
    if not size:
        return FileResponse(file, headers=PICTURE, filename=file.name, content_disposition_type="inline")
    return Response(thumbnail(file, max(16, min(size, MAX_THUMBNAIL))), media_type="image/jpeg", headers=PICTURE)


def preview_response(found: tuple[int, bytes] | None) -> Response:
    """Return the JPEG of a preview, as ``App.preview`` gives it, or 204 where there is none (yet, or any more)."""
    if found is None:
        return Response(status_code=204, headers=FRESH)
    return Response(found[1], media_type="image/jpeg", headers=FRESH)


def thumbnail(file: Path, size: int) -> bytes:
    """Return a JPEG of the picture, at most ``size`` pixels a side."""
    from PIL import Image

    from modules.imaging.thumbnails import encode_jpeg

    with Image.open(file, formats=FORMATS) as image:
        image.draft("RGB", (size, size))
        return encode_jpeg(image, THUMBNAIL_QUALITY, size)


def zipped(paths: list[str]) -> bytes:
    """Return an archive of the files that are still there, stored without compression."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in map(Path, paths):
            if path.is_file():
                archive.write(path, path.name)
    return buffer.getvalue()

"""What the App does by itself."""

import os
import time

import pytest
from PIL import Image

from modules.core.request import Request
from modules.library.inputs import Inputs
from tests.web.running import fake_engine, make_app


@pytest.mark.parametrize(("days", "gone"), [(30, True), (50, False), (0, False)])
def test_pictures_that_were_begun_from_long_ago_go_unless_something_names_them(tmp_path, days, gone) -> None:
    app = make_app(tmp_path, fake_engine(tmp_path))
    app.settings.update({"input_retention_days": days})
    inputs = Inputs(app.folders.inputs)
    shown, queued, stray, young = (inputs.add(Image.new("RGB", (64, 64), colour)).id
                                   for colour in ("red", "green", "blue", "white"))
    app.forms.save("ann", "img2img", {"init_image": shown})
    app.pause()
    app.submit(Request(kind="img2img", init_images=(queued,), width=64, height=64))
    for key in (shown, queued, stray):
        os.utime(inputs.path(key), (time.time() - 40 * 86_400,) * 2)
    app.start()
    try:
        deadline = time.monotonic() + (10 if gone else 0.3)
        while (folder := {path.stem for path in app.folders.inputs.iterdir()}) and time.monotonic() < deadline:
            if gone and stray not in folder:
                break
            time.sleep(0.01)
        assert folder == {shown, queued, young} | (set() if gone else {stray})
    finally:
        app.close()

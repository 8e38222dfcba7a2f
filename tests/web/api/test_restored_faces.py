"""``restore_faces`` of ``/sdapi/v1/txt2img``: by which model, and what the answer says of it."""

import json

SMALL = {"prompt": "a cat", "steps": 2, "width": 64, "height": 64}


def post(client, body: dict):
    return client.post("/sdapi/v1/txt2img", json=body)


def put_face_files(app) -> None:
    """Lay files with the names of GFPGAN's and its detector's where they belong."""
    place = app.folders.models_dir / "GFPGAN"
    place.mkdir(parents=True)
    for name in ("GFPGANv1.4.pth", "detection_Resnet50_Final.pth"):
        (place / name).write_bytes(b"x")


def test_faces_are_restored_by_the_model_of_the_settings(client, app) -> None:
    put_face_files(app)
    sent = {"restore_faces": True, "override_settings": {"face_restoration_model": "GFPGAN"}}
    answer = post(client, SMALL | sent)
    assert answer.status_code == 200, answer.text
    info = json.loads(answer.json()["info"])
    assert (info["restore_faces"], info["face_restoration_model"]) == (True, "GFPGAN")
    request = app.jobs()[0].request
    assert (request.restore_faces, request.settings.face_restoration_model) == (True, "GFPGAN")
    text = "a cat\nSteps: 1, Seed: 2, Face restoration: GFPGAN, Size: 64x64"
    assert post(client, {"infotext": text}).status_code == 200
    request = app.jobs()[0].request
    assert (request.restore_faces, request.settings.face_restoration_model) == (True, "GFPGAN")
    assert post(client, SMALL | {"restore_faces": True}).status_code == 422

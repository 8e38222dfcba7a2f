import pytest

from modules.core.errors import InvalidRequest
from modules.library.face_restorers import face_files, face_restorers, lacking
from modules.library.files import Library, folders
from modules.library.hashes import HashCache


@pytest.fixture
def library(tmp_path):
    return Library(folders(tmp_path, {"codeformer_models_path": str(tmp_path / "own")}),
                   HashCache(tmp_path / "hashes.sqlite3"))


def put(library, *names):
    for name in names:
        path = library.folders.models_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_without_files_it_is_said_which_go_where(library):
    assert face_restorers(library) == {}
    codeformer, gfpgan = lacking(library)
    models = library.folders.models_dir
    assert codeformer == (f"CodeFormer needs codeformer-v0.1.0.pth, which is not here. "
                          f"Put it into {models / 'Codeformer'}.")
    assert gfpgan == f"GFPGAN needs GFPGANv1.4.pth, which is not here. Put it into {models / 'GFPGAN'}."
    put(library, "GFPGAN/GFPGANv1.3.pth")
    assert "detection_Resnet50_Final.pth" in lacking(library)[1] and face_restorers(library) == {}


def test_files_are_found_in_all_folders_by_their_names_in_any_case(library):
    put(library, "GFPGAN/gfpganV1.3.pth", "Codeformer/GFPGANv1.4.pth", "GFPGAN/GFPGANv1.pth",
        "facexlib/detection_Resnet50_Final.pth", "Codeformer/parsing_parsenet.pth", "../own/CodeFormer.safetensors",
        "GFPGAN/detection_mobilenet0.25_Final.pth")
    found = face_restorers(library)
    assert list(found) == ["CodeFormer", "GFPGAN"] and lacking(library) == ()
    gfpgan = found["GFPGAN"]
    assert (gfpgan.restorer.name, gfpgan.detector.name, gfpgan.parser.name) == (
        "GFPGANv1.4.pth", "detection_Resnet50_Final.pth", "parsing_parsenet.pth")
    assert found["CodeFormer"].restorer.path == str(library.folders.root / "own" / "CodeFormer.safetensors")


def test_the_parser_may_be_missing_and_an_unknown_name_is_refused(library):
    put(library, "GFPGAN/GFPGANv1.4.pth", "GFPGAN/detection_Resnet50_Final.pth")
    assert face_files(library, "GFPGAN").parser is None
    with pytest.raises(InvalidRequest, match="'RestoreFormer'"):
        face_files(library, "RestoreFormer")

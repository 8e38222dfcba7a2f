import pytest
import torch

from modules.core.errors import InvalidModel
from modules.families import scheduler
from modules.library.headers import Header, TensorInfo

# The head of latent-diffusion's configurations, v2-inference-v.yaml and v2-inference.yaml.
V_YAML = """model:
  base_learning_rate: 1.0e-4
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    parameterization: "v"
    linear_start: 0.00085
"""
EPS_YAML = V_YAML.replace('    parameterization: "v"\n', "")


def header(path="", *markers, **metadata):
    named = {key.replace("_", ".", 1): value for key, value in metadata.items()}
    return Header(str(path), "safetensors", {name: TensorInfo("F32", (0,)) for name in markers}, named)


def stated(path, *markers, **metadata):
    return scheduler.stated(header(path, *markers, **metadata))


def test_marker_tensors_say_it(tmp_path):
    assert stated("", "v_pred", "ztsnr") == {"prediction_type": "v_prediction", "zero_terminal_snr": True}
    assert stated("", "v_pred") == {"prediction_type": "v_prediction"}
    assert stated("", "ztsnr") == {"zero_terminal_snr": True}


@pytest.mark.parametrize(("yaml", "prediction"), [
    (V_YAML, "v_prediction"), (EPS_YAML, "epsilon"), (V_YAML.replace('"v"', "v"), "v_prediction"),
    (V_YAML.replace('"v"', '"eps"'), "epsilon"), ("notes: about this model", None), (V_YAML.replace('"v"', "x0"), None),
])
def test_a_yaml_beside_the_file_says_it(tmp_path, yaml, prediction):
    (tmp_path / "model.yaml").write_text(yaml)
    assert stated(tmp_path / "model.safetensors").get("prediction_type") == prediction
    assert stated(tmp_path / "other.safetensors") == {}


def test_metadata_says_it_after_the_yaml_and_markers_before(tmp_path):
    (tmp_path / "model.yaml").write_text(EPS_YAML)
    assert stated("x.safetensors", modelspec_prediction_type="v") == {"prediction_type": "v_prediction"}
    assert stated("x.safetensors", modelspec_prediction_type="epsilon") == {"prediction_type": "epsilon"}
    path = tmp_path / "model.safetensors"
    assert stated(path, modelspec_prediction_type="v") == {"prediction_type": "epsilon"}
    assert stated(path, "v_pred") == {"prediction_type": "v_prediction"}
    assert stated("x.safetensors", modelspec_prediction_type="sample") == {}


def test_only_what_is_supported_is_predicted():
    assert scheduler.prediction({}) == "epsilon" and scheduler.prediction({}, "v_prediction") == "v_prediction"
    with pytest.raises(InvalidModel, match="predicts 'sample'"):
        scheduler.prediction({"prediction_type": "sample"})


def test_a_space_of_zero_terminal_snr_agrees_with_diffusers():
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    expected = torch.cumprod(1 - rescale_zero_terminal_snr(betas), 0)
    for key in ("zero_terminal_snr", "rescale_betas_zero_snr"):
        space = scheduler.space({key: True}, "v_prediction", "sdxl")
        ours = torch.tensor(space.alphas_cumprod, dtype=torch.float64)
        torch.testing.assert_close(ours[:-1], expected[:-1], rtol=1e-8, atol=0)
        assert expected[-1] == 0 and 0 < ours[-1] < 1e-7
        assert (space.prediction, space.published) == ("v_prediction", "sdxl")


def test_a_damaged_configuration_is_reported():
    with pytest.raises(InvalidModel, match="scheduler_config"):
        scheduler.space({"num_train_timesteps": "many"}, "epsilon")

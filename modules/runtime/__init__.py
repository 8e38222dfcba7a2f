"""Where tensors live and in what type: devices, weights, loaded models, attention and the patch stack."""

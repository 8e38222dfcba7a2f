"""Files of small changes to a model's weights, LoRA and its kin: read, fitted to a checkpoint, computed."""

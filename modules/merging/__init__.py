"""Merging checkpoints: tensor by tensor from files to a file, never a whole model in memory."""

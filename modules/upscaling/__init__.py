"""Pictures made larger by networks: a workbench beside the engine."""

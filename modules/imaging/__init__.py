"""Pixels: grids and thumbnails."""

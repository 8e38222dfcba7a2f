"""Noise levels, schedules, samplers, guidance and noise: pure functions; only ``noise`` imports torch."""

"""What stands behind page, APIs and command line: one ``App``, its durable queue and the engine's process."""

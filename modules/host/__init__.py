"""Finding, ordering and enabling plugins; a failure is reported by the plugin's name."""

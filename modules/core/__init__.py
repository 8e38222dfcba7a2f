"""The vocabulary that every layer shares: frozen dataclasses, standard library only."""

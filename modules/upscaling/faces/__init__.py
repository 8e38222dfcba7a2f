"""Faces in a picture: found, aligned, restored by a network, and put back."""

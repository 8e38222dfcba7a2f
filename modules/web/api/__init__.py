"""The HTTP interfaces for programs: ``/darkroom/v1``, A1111's ``/sdapi/v1`` and their description."""

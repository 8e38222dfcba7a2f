"""The page and the HTTP interfaces: the only package that knows gradio and fastapi."""

"""What is on disk: model files and their headers, hashes, infotexts and saved pictures. Never reads a tensor."""

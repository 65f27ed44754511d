"""A Whisper server on this machine that speaks the wire protocol of Baseten's streaming endpoint."""

"""Everything that lets the bridge run without accounts: simulator, Whisper server, receiver, demo."""

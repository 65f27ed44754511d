"""From what Whisper says to what is published: absolute times and trimming."""

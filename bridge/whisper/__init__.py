"""Whisper's side: the wire protocol and its dialects, the socket, and the session of one track."""

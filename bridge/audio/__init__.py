"""From Twilio's mu-law bytes to Whisper's frames: journal, tick, companding and the upsampler."""

"""Twilio's side: signatures, TwiML, stream tokens and the Media Streams protocol."""

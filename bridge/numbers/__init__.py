"""Twilio's telephone numbers: what each does with its calls, and leading them through the bridge and back again."""

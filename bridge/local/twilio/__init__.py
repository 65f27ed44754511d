"""A simulated Twilio: signed webhooks, TwiML, and a paced media stream, on this machine."""

from bridge.local.twilio.account import Account
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.report import CallReport, Lateness, StreamReport
from bridge.local.twilio.script import Burst, Digit, Hole, Script
from bridge.local.twilio.twiml import Track

__all__ = [
    "Account",
    "Burst",
    "CallReport",
    "Digit",
    "Hole",
    "Lateness",
    "Script",
    "SimulatedCall",
    "StreamReport",
    "Track",
]

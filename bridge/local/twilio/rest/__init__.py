"""The REST API of the simulated Twilio, strict enough that a misspelt parameter fails."""

from bridge.local.twilio.rest.api import RestApi
from bridge.local.twilio.rest.calls import Line
from bridge.local.twilio.rest.fault import Fault

__all__ = ["Fault", "Line", "RestApi"]

"""A pretend platform: dials a server, speaks for a caller, and holds the server to the rules of protocol.md.

Each file imports only from those before it: errors, conversation, rules, handshake, line, phone, script, and then
screen and terminal, which `manage.py phone` has to itself. No audio, no Django, and no part of the server.
"""

from calls.phone.conversation import NOMINAL_PACE, Conversation, Fragment, Reply, Utterance
from calls.phone.errors import (
    AddressError,
    Closed,
    HungUpError,
    PhoneError,
    RefusedError,
    RuleError,
    SilenceError,
    UnreachableError,
)
from calls.phone.handshake import address
from calls.phone.phone import Phone
from calls.phone.rules import Heard, Rules
from calls.phone.script import (
    DeviationError,
    Player,
    ScriptError,
    ScriptLine,
    begins_at_opening,
    call_id_of,
    read_script,
)

__all__ = [
    "NOMINAL_PACE",
    "AddressError",
    "Closed",
    "Conversation",
    "DeviationError",
    "Fragment",
    "Heard",
    "HungUpError",
    "Phone",
    "PhoneError",
    "Player",
    "RefusedError",
    "Reply",
    "RuleError",
    "Rules",
    "ScriptError",
    "ScriptLine",
    "SilenceError",
    "UnreachableError",
    "Utterance",
    "address",
    "begins_at_opening",
    "call_id_of",
    "read_script",
]

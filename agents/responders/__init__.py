"""The registry of responders: every kind an agent can be given, by name.
A new kind is one file here and one line below; the admin's choices follow by themselves."""

from agents.responders.base import Responder
from agents.responders.fixed import FixedResponder

__all__ = ["RESPONDERS", "Responder"]

RESPONDERS: dict[str, type[Responder]] = {responder.kind: responder for responder in (FixedResponder,)}

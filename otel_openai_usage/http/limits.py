"""What a listener allows its clients."""

import resource
from dataclasses import dataclass

_MIN_CONNECTIONS = 8
_MAX_CONNECTIONS = 128


@dataclass(frozen=True, slots=True)
class Limits:
    """The number of connections, and times in seconds."""

    connections: int
    """Connections that may be open at a time."""
    request: float = 10.0
    """How long a TLS handshake, and the head of a request, may take."""
    stall: float = 10.0
    """How long a client may read nothing of its answer."""
    answer: float = 60.0
    """How long a client may take to read a whole answer."""
    tick: float = 1.0
    """How often these times are checked."""

    @classmethod
    def of_this_process(cls) -> "Limits":
        """Return limits that leave file descriptors for the state, OpenAI and another listener."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if descriptors == resource.RLIM_INFINITY:
            return cls(_MAX_CONNECTIONS)
        quarter = descriptors // 4
        return cls(max(_MIN_CONNECTIONS, min(_MAX_CONNECTIONS, quarter)))

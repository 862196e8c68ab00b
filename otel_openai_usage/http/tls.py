"""The server's side of TLS."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from otel_openai_usage.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Tls:
    """`tls_server_config` of a web config file, checked."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None
    client_verification: ssl.VerifyMode
    min_version: ssl.TLSVersion
    max_version: ssl.TLSVersion
    prefer_server_ciphers: bool

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it names."""
        if self.client_ca_file is None:
            return self.cert_file, self.key_file
        return self.cert_file, self.key_file, self.client_ca_file

    def context(self) -> ssl.SSLContext:
        """Return a new context. Raises ConfigError if a file cannot be read or used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self.min_version
        context.maximum_version = self.max_version
        if self.prefer_server_ciphers:
            context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
        file = self.cert_file
        try:
            context.load_cert_chain(self.cert_file, self.key_file, password=_no_password)
            if self.client_ca_file is not None:
                file = self.client_ca_file
                context.load_verify_locations(self.client_ca_file)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            problem = (
                f"tls_server_config: {file}: {error}; PEM files are expected that belong together,"
                " the key without a password"
            )
            raise ConfigError([problem]) from error
        context.verify_mode = self.client_verification
        return context


def _no_password() -> str:
    # Without this function OpenSSL would ask for the password on the terminal.
    raise ValueError("the key has a password")

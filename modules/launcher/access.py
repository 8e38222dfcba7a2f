"""Who may reach the program: accounts, and the refusal to be reachable by others without any."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from modules.core.errors import Forbidden, InvalidRequest, NotFound
from modules.launcher.flags import Flags

Account = tuple[str, str]

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"


def read_accounts(flags: Flags) -> tuple[Account, ...]:
    """Return every (user, password) that ``flags`` name, those of ``--gradio-auth-path`` included, each once.

    All of them open the page and the API alike. Raises ``NotFound`` if the file cannot be read and
    ``InvalidRequest`` if an entry is not ``user:password``.
    """
    lines = [flags.gradio_auth, flags.api_auth]
    if flags.gradio_auth_path:
        try:
            lines += Path(flags.gradio_auth_path).expanduser().read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise NotFound(f"The file of accounts {flags.gradio_auth_path} cannot be read: {error}.") from None
    return parse_accounts(lines)


def parse_accounts(lines: list[str]) -> tuple[Account, ...]:
    """Return the accounts in ``lines`` of comma-separated ``user:password``; blank entries are skipped.

    Raises ``InvalidRequest`` for an entry without a user, a colon or a password; it never repeats a password.
    """
    entries = [entry.strip() for line in lines for entry in line.split(",") if entry.strip()]
    return tuple(dict.fromkeys(_account(entry, number) for number, entry in enumerate(entries, start=1)))


def _account(entry: str, number: int) -> Account:
    user, colon, password = entry.partition(":")
    if not (user and colon and password):
        raise InvalidRequest(f"Account number {number} is not of the form user:password.")
    return user, password


def host(flags: Flags) -> str:
    """Return the address to answer on: ``--server-name``, or every address for ``--listen``, or this machine alone."""
    return flags.server_name or (EVERYWHERE if flags.listen else LOOPBACK)


def is_loopback(name: str) -> bool:
    """Return whether only this machine reaches ``name``.

    Host names other than localhost count as reachable by others, whatever they resolve to.
    """
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(flags: Flags) -> None:
    """Raise ``Forbidden`` if others could reach the program and ``flags.accounts`` has none to keep them out."""
    if flags.accounts:
        return
    hint = "Add --gradio-auth user:password or --gradio-auth-path FILE; one set of accounts protects page and API."
    if flags.share:
        raise Forbidden("--share opens the program to the whole internet, and there are no accounts.", hint)
    if not is_loopback(host(flags)):
        raise Forbidden(f"On {host(flags)} other machines could use the program, and there are no accounts.", hint)


def address(flags: Flags, port: int) -> str:
    """Return the URL a browser on this machine opens, once the server answers on ``port``."""
    name = LOOPBACK if host(flags) in (EVERYWHERE, "::") else host(flags)
    scheme = "https" if flags.tls_certfile else "http"
    path = flags.subpath.strip("/")
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}/{path + '/' if path else ''}"

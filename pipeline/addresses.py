"""Keep the secrets of addresses out of tables, recipes, reports and messages.

The secrets of an address are its user name and password, `https://user:password@host/...`, and its query, as in a
presigned address. Three forms of an address follow from what the recipe says:

- redacted, for stored recipes and messages: `https://***@host/a.zip?***`. Variables such as `${TOKEN}` stay;
- its identity, which is stored to recognise the source: `https://host/a.zip`;
- complete, with the variables of the environment filled in. Only the download uses it.
"""

import os
import re
from typing import NamedTuple

# In place of a secret.
HIDDEN = "***"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# User names and queries that only consist of variables, and names of parameters.
_OPEN_USER = re.compile(r"(\$\{\w+\}:?)+")
_OPEN_QUERY = re.compile(r"(?:[\w.~-]*=)?\$\{\w+\}(?:&[\w.~-]*=\$\{\w+\})*")
# Also an address whose scheme was forgotten, if it has a user name: //user:password@host/a.zip
_START = r"(?:[A-Za-z][A-Za-z0-9+.-]+:/{1,3}|//(?=[^\s/?#@]*@))"
_SCHEME = re.compile(rf"(\s*{_START})(?=[^/])(.*)", re.DOTALL)
_IN_TEXT = re.compile(rf"{_START}[^\s/<>\"`][^\s<>\"`]*")
_PUNCTUATION = "'),.;:]}"
# In a bucket, `?` is a pattern unless a parameter follows.
_QUERY_OF_BUCKET = re.compile(r"\?[^/=]*=")


class _Parts(NamedTuple):
    scheme: str
    user: str
    place: str
    query: str


def redacted(address: str) -> str:
    """Hide the secrets of an address. Text that is not an address is returned unchanged."""
    found = _parse(address)
    if found is None or not (found.user or found.query or "#" in address):
        return address
    user = found.user and f"{found.user if _OPEN_USER.fullmatch(found.user) else HIDDEN}@"
    query = found.query and f"?{found.query if _OPEN_QUERY.fullmatch(found.query) else HIDDEN}"
    return f"{found.scheme}{user}{found.place}{query}"


def identity(address: str) -> str:
    """Return an address without its secrets, which is stored to recognise the source; other text unchanged."""
    found = _parse(address)
    return address if found is None else f"{found.scheme}{found.place}"


def missing_secrets(address: str) -> list[str]:
    """List what an address lacks to be fetched: hidden parts, and variables that are not set."""
    if "://" not in address:
        return []
    found = _parse(address)
    hidden = found is not None and (HIDDEN in (found.user, found.query))
    unset = [name for name in _VARIABLE.findall(address) if not os.environ.get(name)]
    parts = ["the user name, password or query of its address, which is not stored"] if hidden else []
    return parts + [f"the environment variable {name}" for name in dict.fromkeys(unset)]


def complete(address: str) -> str:
    """Fill the variables of the environment into an address; those that are not set stay as they are."""
    return _VARIABLE.sub(lambda found: os.environ.get(found[1]) or found[0], address)


def redacted_text(text: str) -> str:
    """Hide the secrets of every address in a text, such as a message."""
    return _IN_TEXT.sub(_redact_match, text) if "//" in text or ":/" in text else text


def _redact_match(found: re.Match[str]) -> str:
    address = found[0].rstrip(_PUNCTUATION)
    return redacted(address) + found[0][len(address) :]


def _parse(address: str) -> _Parts | None:
    """Split an address; None for a path or other text."""
    found = _SCHEME.fullmatch(address)
    if found is None:
        return None
    scheme, rest = found[1], found[2]
    at = _end_of_user(rest)
    user, rest = rest[: max(at, 0)], rest[at + 1 :]
    if scheme.lower().startswith("s3:"):
        query = _QUERY_OF_BUCKET.search(rest)
        place, parameters = (rest[: query.start()], rest[query.start() + 1 :]) if query else (rest, "")
        return _Parts(scheme, user, place, parameters)
    # The fragment is never sent.
    place, _, parameters = rest.partition("#")[0].partition("?")
    return _Parts(scheme, user, place, parameters)


def _end_of_user(rest: str) -> int:
    """Return the position of the @ that ends the user name and password; -1 if there are none."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        return authority.rindex("@")
    # A password with a slash that is not percent-encoded: `user:pass/word@host`. A port has digits only.
    has_password = re.match(r"[^:\[]+:(?!\d*$)", authority) is not None
    return rest.rfind("@") if has_password else -1

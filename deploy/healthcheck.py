"""Exit 0 if the server of this container answers `/healthz`. It asks by a name that ALLOWED_HOSTS allows."""

import http.client
import os
import sys

TIMEOUT_S = 2


def name_to_ask_by(allowed: str) -> str:
    """The first allowed host, as a request may name it."""
    first = allowed.split(",", maxsplit=1)[0].strip()
    return "localhost" if first in {"", "*"} else first.removeprefix(".")


def main() -> int:
    """0 if it lives, else 1."""
    server = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT", "8000")), timeout=TIMEOUT_S)
    try:
        server.request("GET", "/healthz", headers={"Host": name_to_ask_by(os.environ.get("ALLOWED_HOSTS", ""))})
        return 0 if server.getresponse().status == http.client.OK else 1
    except (OSError, http.client.HTTPException):
        return 1
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main())

"""The settings that pytest and mypy load: the project's own, made to need nothing from the environment."""

import os

# DEBUG while they load: no redirect to HTTPS and no manifest of static files. pytest-django switches it off again.
os.environ.setdefault("DEBUG", "1")
os.environ.setdefault("SECRET_KEY", "only-for-tests-" + "0123456789abcdef" * 3)

from project.settings import *  # noqa: E402, F403 - the two lines above must come first, and all of it is wanted

# A login costs 0.2 s with the production hasher, and no test is about it.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

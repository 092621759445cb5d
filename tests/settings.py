"""The settings that pytest and mypy load: the project's own, made to need nothing from the environment."""

import os

# While they load only: no redirect to HTTPS, no manifest of static files. pytest-django switches DEBUG off.
os.environ.setdefault("DEBUG", "1")
os.environ.setdefault("SECRET_KEY", "only-for-tests-" + "0123456789abcdef" * 3)

from project.settings import *  # noqa: F403 - the two lines above must come first, and all of it is wanted

# A login costs 0.2 s with the production hasher, and no test is about it.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

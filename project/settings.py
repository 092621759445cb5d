"""Django's settings. What differs between installations comes from the environment; see docs/reference/settings."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key
from django.utils.csp import CSP

from project.configuration import Configuration

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()

DEBUG: bool = env.bool("DEBUG", default=False)
HOST: str = env.str("HOST", default="127.0.0.1")
PORT: int = env.int("PORT", default=8000)

CONFIGURATION = Configuration.from_environment(os.environ)


def _secret_key() -> str:
    given: str = env.str("SECRET_KEY", default="")
    if given:
        return given
    if DEBUG:
        # A new key a process would log everyone out at each restart of a development server.
        path = BASE_DIR / "var" / "secret_key"
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_text(get_random_secret_key())
            path.chmod(0o600)
        return path.read_text()
    raise ImproperlyConfigured("set SECRET_KEY to at least 50 random characters, or DEBUG=1 on your own machine")


SECRET_KEY = _secret_key()
_EVERY_ADDRESS = HOST in {"0.0.0.0", "::"}  # noqa: S104 - who listens on all of them is asked by any name
_OWN_NAMES = ["*"] if _EVERY_ADDRESS else ["127.0.0.1", "localhost", "[::1]", HOST]
ALLOWED_HOSTS: list[str] = env.list("ALLOWED_HOSTS", default=_OWN_NAMES if DEBUG else [])
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "servestatic",
    "channels",
    "waffle",
    "axes",
    "apps.realtime",
    "apps.execution",
    "apps.rollout",
    "apps.chat",
    "apps.operations",
    "project",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "project.privacy.PrivateByCookie",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "project.urls"
ASGI_APPLICATION = "project.asgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.csp",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

_SQLITE = {
    # IMMEDIATE: a transaction that reads first and writes later otherwise fails at once with "database is locked".
    "transaction_mode": "IMMEDIATE",
    "timeout": 10,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA busy_timeout=10000;",
}


def _database() -> dict[str, Any]:
    database: dict[str, Any] = env.db_url("DATABASE_URL", default=f"sqlite:///{BASE_DIR / 'var' / 'turnout.sqlite3'}")
    if database["ENGINE"] == "django.db.backends.sqlite3":
        (BASE_DIR / "var").mkdir(exist_ok=True)
        database["ENGINE"] = "project.sqlite"
        database["OPTIONS"] = _SQLITE
        # An in-memory test database would hide what WAL and several connections do.
        database["TEST"] = {"NAME": str(BASE_DIR / "var" / f"test-{os.getpid()}.sqlite3")}
    database["CONN_MAX_AGE"] = 0
    database["CONN_HEALTH_CHECKS"] = True
    return database


DATABASES = {"default": _database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL: str = env.str("REDIS_URL", default="")
CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [REDIS_URL]}}
    if REDIS_URL
    else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
}

# A task is only a wake-up. Where runs are executed in this process, running it where it is enqueued is all it needs.
TASKS: dict[str, dict[str, Any]] = {"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}}
TURNOUT_EXECUTE_QUEUED = "project.worker.execute_queued"
if CONFIGURATION.execution == "workers" and DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
    if find_spec("procrastinate") is None:
        raise ImproperlyConfigured("TURNOUT_EXECUTION=workers needs the extra `workers`: uv pip install '.[workers]'")
    INSTALLED_APPS.append("procrastinate.contrib.django")
    PROCRASTINATE_AUTODISCOVER_MODULE_NAME = None  # its worker runs no tasks of the apps
    TASKS = {"default": {"BACKEND": "apps.execution.jobs.ProcrastinateBackend", "QUEUES": []}}

AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "chat"
LOGOUT_REDIRECT_URL = "login"
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_TEMPLATE = "chat/locked_out.html"

WAFFLE_FLAG_MODEL = "rollout.Flag"

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]  # what apps/*/locale has a complete catalog of
LANGUAGE_COOKIE_SAMESITE = "Lax"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
SERVESTATIC_USE_FINDERS = DEBUG
SERVESTATIC_AUTOREFRESH = DEBUG
FILE_UPLOAD_HANDLERS = ["apps.chat.uploads.BoundedUploads"]
DATA_UPLOAD_MAX_NUMBER_FILES = 1
DATA_UPLOAD_MAX_NUMBER_FIELDS = 100
STORAGES = {
    "attachments": {"BACKEND": "apps.chat.filestorage.DatabaseStorage"},
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "servestatic.storage.CompressedManifestStaticFilesStorage"
    },
}

SECURE_CSP = {
    "default-src": [CSP.SELF],
    "script-src": [CSP.SELF, CSP.NONCE],
    "style-src": [CSP.SELF],
    "img-src": [CSP.SELF, "data:"],
    "connect-src": [CSP.SELF],
    "object-src": [CSP.NONE],
    "base-uri": [CSP.NONE],
    "form-action": [CSP.SELF],
    "frame-ancestors": [CSP.NONE],
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = False  # the page's script sends the token of its own cookie back
if not DEBUG and not env.bool("INSECURE_HTTP", default=False):
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    LANGUAGE_COOKIE_SECURE = True
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
BEHIND_TLS_PROXY: bool = env.bool("BEHIND_TLS_PROXY", default=False)
PROXY_HOPS: int = env.int("PROXY_HOPS", default=0)  # proxies that each append to X-Forwarded-For
if BEHIND_TLS_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

_LOG_FORMATTERS = {"lines": "LineFormatter", "json": "JsonFormatter"}
LOG_FORMAT: str = env.str("LOG_FORMAT", default="lines")
if LOG_FORMAT not in _LOG_FORMATTERS:
    raise ImproperlyConfigured(f"LOG_FORMAT is {LOG_FORMAT!r}; it takes {' or '.join(_LOG_FORMATTERS)}")
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": f"apps.operations.loglines.{_LOG_FORMATTERS[LOG_FORMAT]}"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", default="INFO")},
    "loggers": {
        "daphne": {"level": "WARNING"},
        "axes": {"level": "WARNING"},
        "django.tasks": {"level": "WARNING"},
        "channels_redis": {"level": "CRITICAL"},  # a traceback a second in an outage; the hints say it in one line
    },
}

# The rooms that can be deleted are named here, by dotted path, and imported nowhere.
TURNOUT_LEGACY_ENGINE: str = "apps.legacy.engine.get_execution_engine"
TURNOUT_LEGACY_PRIVATE_ENGINE: str = "apps.legacy.engine.get_private_execution_engine"
TURNOUT_LEGACY_BRIDGE: str = "apps.legacy.bridge.get_agent_websocket_bridge"
TURNOUT_SEAMS: str = "project.seams.SEAMS"
TURNOUT_JUDGEMENT: str = "project.watching.judgement"
TURNOUT_AGENTS: list[str] = env.list("TURNOUT_AGENTS", default=[])
TURNOUT_PLAN: str = env.str("TURNOUT_PLAN", default="")

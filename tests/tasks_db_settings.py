"""The project on another backend of `django.tasks`, as its how-to page says."""

from project.settings import *  # noqa: F403 - all of it is wanted
from project.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "django_tasks_db"]
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}

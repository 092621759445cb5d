"""`manage.py faults`: what goes wrong in production, done on purpose to a disposable copy of a deployment."""

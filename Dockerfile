# Opspawn: the API, workers and every other command of `opspawn`, as one small image.
#
# Built from the locked dependencies, each held to its hash. Runs as an unprivileged user, needs no capability, and
# works with a root file system that cannot be written. To hold the base image to the byte, too, add its digest to both
# lines that begin with FROM (python:3.14-slim-trixie@sha256:…): a tag can be moved.

FROM python:3.14-slim-trixie AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# What is run. Bytecode is made here: there is nowhere to write it later.
COPY packages/ops-core/requirements.lock runtime.lock
RUN python -m venv /opt/opspawn \
    && /opt/opspawn/bin/python -m pip install --require-hashes --no-deps --only-binary :all: -r runtime.lock

# What builds our two packages, from the same lock: the block of uv_build.
COPY requirements.lock .
RUN awk '/^uv-build==/ { found = 1 } found { print } found && !/\\$/ { exit }' requirements.lock > build.lock \
    && python -m venv /opt/build \
    && /opt/build/bin/python -m pip install --require-hashes --no-deps --only-binary :all: -r build.lock
COPY packages packages
RUN PATH="/opt/build/bin:${PATH}" \
    python -m pip wheel --no-deps --no-build-isolation --wheel-dir wheels packages/agentkit packages/ops-core \
    && /opt/opspawn/bin/python -m pip install --no-deps --no-index wheels/*.whl \
    && /opt/opspawn/bin/python -m pip check \
    && /opt/opspawn/bin/python -m pip uninstall --yes pip


FROM python:3.14-slim-trixie
LABEL org.opencontainers.image.title="Opspawn" \
      org.opencontainers.image.description="Runs LLM agents so that they finish." \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --system --gid 10001 opspawn \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/opspawn --create-home --shell /usr/sbin/nologin opspawn \
    && install -d -o root -g root /agents
COPY --from=build /opt/opspawn /opt/opspawn
ENV PATH="/opt/opspawn/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OPSPAWN_LOG_FORMAT=json \
    OPSPAWN_STORE_URL=sqlite:////var/lib/opspawn/opspawn.db
USER 10001:10001
# Your opspawn.toml and tools, mounted for reading; without them there is the default agent.
WORKDIR /agents
# Without a server, tasks are in a file here; with one, nothing is written.
VOLUME ["/var/lib/opspawn"]
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:%s/health/live' % (os.environ.get('OPSPAWN_PORT') or 8700), timeout=4)"]
ENTRYPOINT ["opspawn"]
CMD ["serve"]

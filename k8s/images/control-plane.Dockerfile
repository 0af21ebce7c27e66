# syntax=docker/dockerfile:1
# The service, its migration and the metering agent. From the repository's root:
#   docker build -f k8s/images/control-plane.Dockerfile -t shisuan/control-plane:0.3.0 .
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# Processes of the image keep no bytecode (PYTHONDONTWRITEBYTECODE): each would compile anew all that it imports.
ENV UV_COMPILE_BYTECODE=1
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY LICENSES LICENSES
# Only what these extras need of the lock, in its versions, checked by its hashes.
RUN uv venv /opt/shisuan && uv pip install --no-cache --python /opt/shisuan --require-hashes -c requirements.lock \
    -r pyproject.toml --extra service --extra ray --extra kubernetes
COPY scheduler scheduler
COPY workers workers
COPY pipelines pipelines
COPY k8s k8s
RUN uv build --wheel --require-hashes --build-constraints requirements.lock --out-dir /dist \
    && uv pip install --no-cache --python /opt/shisuan --no-deps /dist/*.whl

FROM ${BASE}
LABEL org.opencontainers.image.title="shisuan control plane" org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --user-group --home-dir /var/lib/shisuan --create-home shisuan
COPY --from=build /opt/shisuan /opt/shisuan
ENV PATH=/opt/shisuan/bin:$PATH PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
CMD ["python", "-P", "-m", "scheduler.wiring", "--home", "/var/lib/shisuan", "--host", "0.0.0.0", "--port", "8080"]

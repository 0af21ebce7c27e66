# syntax=docker/dockerfile:1
# The job lane: Ray, our agent and torchrun's launcher, PyTorch with CUDA. Users build theirs from it. From the root:
#   docker build -f k8s/images/training.Dockerfile -t shisuan/training:0.3.0 .
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# Processes of the image keep no bytecode (PYTHONDONTWRITEBYTECODE): each would compile anew all that it imports.
ENV UV_COMPILE_BYTECODE=1
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY LICENSES LICENSES
RUN uv venv /opt/shisuan && uv pip install --no-cache --python /opt/shisuan --require-hashes -c requirements.lock \
    -r pyproject.toml --extra service --extra ray
# The user's environment: PyTorch is not in the lock, which cannot name its builds; its version is bin/setup's.
RUN uv venv /opt/training && uv pip install --no-cache --python /opt/training torch==2.13.0
COPY scheduler scheduler
COPY workers workers
COPY pipelines pipelines
RUN uv build --wheel --require-hashes --build-constraints requirements.lock --out-dir /dist \
    && uv pip install --no-cache --python /opt/shisuan --no-deps /dist/*.whl

FROM ${BASE}
LABEL org.opencontainers.image.title="shisuan training" org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update && apt-get install --yes --no-install-recommends bubblewrap && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --user-group --home-dir /var/lib/shisuan --create-home shisuan
COPY --from=build /opt/training /opt/training
COPY --from=build /opt/shisuan /opt/shisuan
ENV PATH=/opt/shisuan/bin:$PATH PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 SHISUAN_TRAIN_PYTHON=/opt/training/bin/python
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001

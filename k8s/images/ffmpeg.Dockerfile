# syntax=docker/dockerfile:1
# A pool worker that encodes and merges: Ray, our agent and runners, ffmpeg. From the repository's root:
#   docker build -f k8s/images/ffmpeg.Dockerfile -t shisuan/ffmpeg:0.3.0 .
# The ffmpeg of the imageio-ffmpeg wheel is a GPL build; it is a program of its own, started by our runner.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# Processes of the image keep no bytecode (PYTHONDONTWRITEBYTECODE): each would compile anew all that it imports.
ENV UV_COMPILE_BYTECODE=1
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY LICENSES LICENSES
RUN uv venv /opt/shisuan && uv pip install --no-cache --python /opt/shisuan --require-hashes -c requirements.lock \
    -r pyproject.toml --extra service --extra ray --extra media
COPY scheduler scheduler
COPY workers workers
COPY pipelines pipelines
RUN uv build --wheel --require-hashes --build-constraints requirements.lock --out-dir /dist \
    && uv pip install --no-cache --python /opt/shisuan --no-deps /dist/*.whl

FROM ${BASE}
LABEL org.opencontainers.image.title="shisuan ffmpeg worker" \
    org.opencontainers.image.licenses="Apache-2.0 AND GPL-3.0-or-later"
RUN apt-get update && apt-get install --yes --no-install-recommends bubblewrap libgl1 && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --user-group --home-dir /var/lib/shisuan --create-home shisuan
COPY --from=build /opt/shisuan /opt/shisuan
ENV PATH=/opt/shisuan/bin:$PATH PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1
ENV NVIDIA_DRIVER_CAPABILITIES=compute,video,utility
USER 10001:10001

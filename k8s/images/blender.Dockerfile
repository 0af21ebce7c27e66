# syntax=docker/dockerfile:1
# A pool worker that renders: Ray, our agent and runners; beside them Blender and the one file that runs inside it. From the
# repository's root:
#   docker build -f k8s/images/blender.Dockerfile -t shisuan/blender:0.3.0 .
# Blender and workers/blender_runner.py are GPL-3.0-or-later and lie in /opt/blender and in a layer of its own; everything
# else is Apache-2.0 and talks to them over pipes.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# Processes of the image keep no bytecode (PYTHONDONTWRITEBYTECODE): each would compile anew all that it imports.
ENV UV_COMPILE_BYTECODE=1
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /src
COPY pyproject.toml requirements.lock requirements-blender.lock README.md LICENSE ./
COPY LICENSES LICENSES
RUN uv venv /opt/blender && uv pip install --no-cache --python /opt/blender --require-hashes -r requirements-blender.lock
RUN uv venv /opt/shisuan && uv pip install --no-cache --python /opt/shisuan --require-hashes -c requirements.lock \
    -r pyproject.toml --extra service --extra ray --extra media
COPY scheduler scheduler
COPY workers workers
COPY pipelines pipelines
RUN uv build --wheel --require-hashes --build-constraints requirements.lock --out-dir /dist \
    && uv pip install --no-cache --python /opt/shisuan --no-deps /dist/*.whl \
    && mkdir /opt/runner && mv /opt/shisuan/lib/python3.11/site-packages/workers/blender_runner.py /opt/runner/

FROM ${BASE}
LABEL org.opencontainers.image.title="shisuan Blender worker" \
    org.opencontainers.image.licenses="Apache-2.0 AND GPL-3.0-or-later"
# Shared libraries that Blender loads even without a screen.
RUN apt-get update && apt-get install --yes --no-install-recommends \
    bubblewrap libx11-6 libxrender1 libxfixes3 libxi6 libxkbcommon0 libsm6 libgl1 \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --user-group --home-dir /var/lib/shisuan --create-home shisuan
COPY --from=build /opt/blender /opt/blender
COPY --from=build /opt/shisuan /opt/shisuan
COPY --from=build /opt/runner/blender_runner.py /opt/shisuan/lib/python3.11/site-packages/workers/blender_runner.py
COPY LICENSES/GPL-3.0-or-later.txt /opt/blender/LICENSE.GPL
ENV PATH=/opt/shisuan/bin:$PATH PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 SHISUAN_BLENDER=/opt/blender/bin/python
ENV NVIDIA_DRIVER_CAPABILITIES=compute,graphics,utility
USER 10001:10001
